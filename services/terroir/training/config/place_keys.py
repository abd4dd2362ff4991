"""Keys that say what is trained on what, and where the result goes."""

from __future__ import annotations

from pydantic import Field

from terroir.training.config.limits import Identifier, Line, Section


class PlaceKeys(Section):
    """Data, base and result."""

    dataset: Line = Field(
        "",
        max_length=200,
        description="For the service: dataset version, `datasets/ID/versions/N`, or `datasets/ID` for the newest.",
    )
    train_data_dir: Line = Field(
        "",
        max_length=4096,
        description="Folder of pictures with sidecar .txt files or a metadata.csv, for a run without a server; "
        "`terroir train submit` makes a dataset of it.",
    )
    metadata_path: Line = Field(
        "",
        max_length=4096,
        description="CSV file with columns `file_name` and `text` that replaces the sidecars and the metadata.csv of "
        "train_data_dir.",
    )
    output_dir: Line = Field(
        "output", min_length=1, max_length=4096, description="Folder that receives the files of a run without a server."
    )
    adapter: Identifier = Field(
        "",
        description="Adapter that receives the result; names the files of a local run.",
    )
    base_model: Line = Field(
        "terroir-tiny",
        min_length=1,
        max_length=4096,
        description="Base model: an id that the operator registered; a local run also takes a diffusers folder.",
    )
    pretrained_lora: Line = Field(
        "",
        max_length=4096,
        description="Adapter to go on from: `ID@ALIAS`, `adapters/ID/versions/N`, `adapters/ID` for the newest; a "
        "local run takes a .safetensors file. Rank, alpha and layers must be those of the file.",
    )
    trigger_word: Line = Field(
        "",
        max_length=64,
        description="Word put before every caption that lacks it; empty means the dataset's own.",
    )
