"""Which part of a picture is trained on, and at what size."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from terroir.training.engine.data.buckets import Size

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the upright picture."""


@dataclass(frozen=True)
class Frame:
    """A part of a picture with the aspect ratio of the size that it is brought to."""

    picture: Size
    box: Box
    target: Size

    @classmethod
    def centred(cls, picture: Size, target: Size, region: Box | None = None) -> Frame:
        """The largest part in the middle of `region`, by default of the whole picture: resize to cover, then cut."""
        left, top, right, bottom = region or (0.0, 0.0, float(picture.width), float(picture.height))
        width, height = right - left, bottom - top
        wanted = target.width / target.height
        # The order of these operations is that of PIL's ImageOps.fit, so that both give the same bits.
        if width / height == wanted:
            part = width, height
        elif width / height >= wanted:
            part = wanted * height, height
        else:
            part = width, width / wanted
        left, top = left + (width - part[0]) * 0.5, top + (height - part[1]) * 0.5
        return cls(picture, (left, top, left + part[0], top + part[1]), target)

    def cut(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """That part of an image which shows the picture, at the target size; the image may have another resolution."""
        across, down = image.width / self.picture.width, image.height / self.picture.height
        left, top, right, bottom = self.box
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        return image.resize(self.target, resampling, box=box)

    def geometry(self, mirrored: bool) -> tuple[float, ...]:
        """SDXL's micro-conditioning (Podell et al., arXiv 2307.01952, section 2.2), six numbers in pixels.

        Height and width of the picture before anything was done to it, top and left of the crop in the picture after
        it was resized, height and width of the target.
        """
        left, top, right, _ = self.box
        scale = self.target.width / (right - left)
        start = self.picture.width - right if mirrored else left
        corner = float(round(top * scale)), float(round(start * scale))
        return (float(self.picture.height), float(self.picture.width), *corner, *map(float, self.target[::-1]))
