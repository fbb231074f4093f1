"""Draws labelled boxes on images. Needs no torch."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageDraw, ImageFont

_PADDING = 2
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelledBox:
    """box_xyxy: pixels. score: 0..1, None for ground truth."""

    box_xyxy: tuple[float, float, float, float]
    name: str
    score: float | None = None

    @property
    def text(self) -> str:
        return self.name if self.score is None else f"{self.name} {self.score:.2f}"


def class_colour(name: str) -> tuple[int, int, int]:
    """A bright RGB colour, the same for a name in every image and run."""
    number = zlib.crc32(name.encode())
    hue, light = (number % 997) / 997, 0.52 + 0.16 * ((number // 997) % 3) / 2
    red, green, blue = (round(255 * v) for v in colorsys.hls_to_rgb(hue, light, 0.9))
    return red, green, blue


def draw_boxes(
    image: Image.Image, boxes: Sequence[LabelledBox], min_side: int = 0, text_size: int | None = None
) -> Image.Image:
    """A copy of `image` as RGB with the boxes drawn on it, the first ones on top.

    A label stands above its box, or inside or below it for lack of room, and always inside the image.

    min_side: a smaller short side is enlarged by an integer first, so that labels can be read.
    text_size: pixels; None chooses one for the image size.
    """
    factor = max(1, -(-min_side // min(image.size)))
    canvas = image.convert("RGB").resize(
        (image.width * factor, image.height * factor), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    # With a size, Pillow gives its built-in TrueType font.
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(text_size or max(10, min(22, side // 36))))
    line = max(1, round(side / 240))
    rectangles = [_clip(b.box_xyxy, factor, canvas.size) for b in boxes]
    for box, rectangle in reversed(list(zip(boxes, rectangles, strict=True))):
        draw.rectangle(rectangle, outline=class_colour(box.name), width=line)
    taken: list[Rectangle] = []
    labels = []
    for box, rectangle in zip(boxes, rectangles, strict=True):
        text, size = _fit_text(draw, box.text, font, canvas.width - 2 * _PADDING)
        label = _place_label(rectangle, size, canvas.size, taken)
        taken.append(label)
        labels.append((label, text, class_colour(box.name)))
    for label, text, colour in reversed(labels):
        draw.rectangle(label, fill=colour)
        dark = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000 < 110
        draw.text((label[0] + _PADDING, label[1]), text, fill="white" if dark else "black", font=font)
    return canvas


def _clip(box: Sequence[float], factor: float, size: tuple[int, int]) -> Rectangle:
    """The box in integer canvas pixels (last one inclusive), inside the canvas and not inverted."""
    x0, y0, x1, y1 = (v * factor for v in box)
    left, top = (min(max(round(v), 0), n - 1) for v, n in ((x0, size[0]), (y0, size[1])))
    right, bottom = (min(max(round(v) - 1, 0), n - 1) for v, n in ((x1, size[0]), (y1, size[1])))
    return left, top, max(left, right), max(top, bottom)


def _fit_text(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int
) -> tuple[str, tuple[int, int]]:
    """The text, cut to `width` pixels, and the (width, height) of its label."""
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-1]
    ascent, descent = font.getmetrics()
    return text, (round(draw.textlength(text, font=font)) + 2 * _PADDING, ascent + descent)


def _place_label(
    box: Rectangle, size: tuple[int, int], canvas: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Above the box, at its top, at its bottom, or below it: the first that covers no other label."""
    width, height = size
    tops = (box[1] - height, box[1], box[3] - height, box[3] + 1)
    places = []
    for top in tops:
        x = min(max(box[0], 0), max(0, canvas[0] - width))
        y = min(max(top, 0), max(0, canvas[1] - height))
        places.append((x, y, min(x + width, canvas[0]) - 1, min(y + height, canvas[1]) - 1))
    return next((p for p in places if not any(_overlap(p, t) for t in taken)), places[0])


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
