"""Pictures, sheets and answers for tests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from terroir.common.clock import FixedClock
from terroir.store.obstore_driver import MemoryStore
from terroir.training.rating.model import Answer, Drawn, Kind, Sheet
from terroir.training.rating.sheets import RealPicture, Sheets, Subject

SUBJECT = Subject("adapters/ink/versions/1", "job-1", "datasets/ink/versions/1")


def photo(seed: int, width: int = 90, height: int = 70, **save: Any) -> bytes:
    """A JPEG with everything that cameras leave in it."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera of Ana", 6  # maker, and lying on its side
    file = io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))
    picture.save(file, "JPEG", exif=exif, comment=b"secret place", **save)
    return file.getvalue()


def drawing(seed: int, side: int = 64) -> bytes:
    """A PNG with what a generator writes into it."""
    told = PngInfo()
    told.add_text("parameters", "a lake <lora:ink:1>, seed 7")
    told.add_itxt("terroir", "provenance")
    file = io.BytesIO()
    shades = np.linspace(0, 255, side, dtype=np.uint8)[None, :, None].repeat(side, 0).repeat(3, 2)
    shades = (shades.astype(int) * (seed % 5 + 1) // 5).astype(np.uint8)
    Image.fromarray(shades).save(file, "PNG", pnginfo=told)
    return file.getvalue()


def real(count: int) -> list[RealPicture]:
    return [RealPicture(f"real-{n}.jpg", photo(n), f"{n:064x}") for n in range(count)]


def generated(count: int) -> list[Drawn]:
    return [Drawn(drawing(n), f"a secret prompt {n}", n) for n in range(count)]


def sheets() -> Sheets:
    return Sheets(MemoryStore(), FixedClock())


def made(reals: int = 3, drawings: int = 3, house: Sheets | None = None) -> Sheet:
    return (house or sheets()).make("request", SUBJECT, real(reals), generated(drawings), "local:ana")


def answers(sheet: Sheet, *, fooled: bool, recognised: bool = True, on_brand: bool = True) -> Mapping[str, Answer]:
    """Everything answered in one way."""
    return {item.label: Answer(recognised if item.kind is Kind.REAL else fooled, on_brand) for item in sheet.items}
