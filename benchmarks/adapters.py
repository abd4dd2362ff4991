"""Random adapters for the tiny base: every figure that needs one makes its own, so that no cache has seen it."""

from __future__ import annotations

import numpy as np

from terroir._proto.registry.v1 import registry_pb2
from terroir.client import Client
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import to_kohya
from terroir.lora.key_table import KeyTable
from terroir.tiny import BASE_DIR, BASE_ID

_ATTENTION = ("attn",)
_EVERYWHERE = ("attn", "ff.net", "mlp.fc", "resnets.0.conv1", "proj_in")


def base_key_table() -> KeyTable:
    """The tiny base's adaptable layers, from file headers alone."""
    return read_base_folder(BASE_DIR).layers


def everywhere(table: KeyTable, seed: int, rank: int = 4) -> bytes:
    """A kohya file that changes attention, feed-forward, convolution and text encoder layers visibly."""
    return _file(table, _EVERYWHERE, seed, rank)


def attention(table: KeyTable, seed: int, rank: int) -> bytes:
    """A kohya file of the denoiser's attention layers, as most published adapters are."""
    return _file({layer: shape for layer, shape in table.items() if layer.startswith("unet.")}, _ATTENTION, seed, rank)


def of_size(table: KeyTable, seed: int, size_bytes: int) -> bytes:
    """A kohya file of the attention layers of about that many bytes, by choice of the rank."""
    layers = [shape for layer, shape in table.items() if any(part in layer for part in _ATTENTION)]
    bytes_a_rank = sum(4 * (shape[0] + int(np.prod(shape[1:]))) for shape in layers)
    return _file(table, _ATTENTION, seed, max(1, round(size_bytes / bytes_a_rank)))


def publish(client: Client, adapter: str, data: bytes) -> str:
    """Publish a file as the adapter's next version; its name."""
    header = registry_pb2.PublishHeader(adapter=f"adapters/{adapter}", base=f"bases/{BASE_ID}")
    return client.registry.publish(header, data).name


def _file(table: KeyTable, parts: tuple[str, ...], seed: int, rank: int) -> bytes:
    rng = np.random.default_rng(seed)
    modules = {}
    for layer, shape in table.items():
        if any(part in layer for part in parts):
            down = rng.standard_normal((rank, *shape[1:]), dtype=np.float32) / np.sqrt(np.prod(shape[1:]))
            up = rng.standard_normal((shape[0], rank, *(1 for _ in shape[2:])), dtype=np.float32)
            # A delta of about 0.15 / sqrt(inputs) an element, against about 1 / sqrt(inputs) of a trained weight.
            up *= np.float32(0.15 / np.sqrt(rank))
            modules[layer] = LoraModule(np.asarray(down, np.float32), up, alpha=float(rank))
    return to_kohya(Adapter(modules), {})
