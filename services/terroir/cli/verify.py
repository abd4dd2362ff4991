"""`terroir adapter verify`: is this version what a trusted registry signed?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terroir.cli.session import resource, session
from terroir.common.errors import InvalidArgument


def verify(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="`jiangnan` (newest), `jiangnan@production` or `jiangnan/versions/3`.", show_default=False),
    ],
    trusted_key: Annotated[
        list[Path],
        typer.Option(help="PEM file of a public key that may have signed it; may be repeated.", show_default=False),
    ],
    keep: Annotated[
        Path | None,
        typer.Option(
            help="New folder for what was signed and its bundle, to be checked again with `model_signing verify key`."
        ),
    ] = None,
) -> None:
    """Download a version and prove that a trusted key signed its file, base, tensors and trigger word."""
    # Half a second to import, and with extras that other commands do without.
    from terroir.common.signatures import Verifier, lay_out
    from terroir.common.signed_version import signature_of, signed_facts

    if keep is not None and keep.exists():
        raise InvalidArgument(f"{keep} is there already; name a new folder", reason="FOLDER_EXISTS", field="keep")
    verifier = Verifier(trusted_key)
    with session(context).client() as client:
        file = client.registry.download(resource("adapters", name))
    facts, signature = signed_facts(file.version), signature_of(file.version)
    verifier.verify(file.data, facts, signature)
    told = [f"{file.version.name} is as it was signed with key {file.version.signature.key_id[:16]}"]
    if keep is not None and signature is not None:
        keep.mkdir(parents=True)
        lay_out(keep / "adapter", file.data, facts)
        (keep / "bundle.json").write_text(signature.bundle, encoding="utf-8")
        told.append(
            f"again without Terroir: model_signing verify key {keep / 'adapter'} --signature {keep / 'bundle.json'} "
            f"--public_key {trusted_key[0]}"
        )
    session(context).show(file.version, *told)
