"""Python client of Terroir: datasets, training, registry, regions and pictures over gRPC.

Example::

    from terroir.client import Client

    with Client() as terroir:
        result = terroir.generate("a red teapot by a river", adapters={"jiangnan@production": 0.8}, seeds=[7])
        result.pictures[0].save("cover.png")
"""

from __future__ import annotations

from terroir.client.client import Client
from terroir.client.cover_values import Cover, CoverContent, CoverQuery, Rung
from terroir.client.datasets import FolderPicture, ImportedPicture, scan_folder
from terroir.client.endpoints import Endpoints
from terroir.client.pictures import Generated, Picture
from terroir.client.styles import StyleOperation

__all__ = [
    "Client",
    "Cover",
    "CoverContent",
    "CoverQuery",
    "Endpoints",
    "FolderPicture",
    "Generated",
    "ImportedPicture",
    "Picture",
    "Rung",
    "StyleOperation",
    "scan_folder",
]
