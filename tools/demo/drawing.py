"""Detections, drawn at the size that a page shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from inference.drawing import draw_boxes
from inference.prediction import Prediction
from tools.demo.region import Box

# Of a drawing's long side: labels that are drawn at this size can be read in half a page.
SIDE = 800
TEXT = 18


def scale_of(pixels: np.ndarray) -> float:
    """A drawing's pixels per pixel of the image (H, W, 3)."""
    return SIDE / max(pixels.shape[:2])


def draw(pixels: np.ndarray, prediction: Prediction, region: Box | None = None) -> Image.Image:
    """The image with its detections, and the region in black and white."""
    scale = scale_of(pixels)
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    scaled = replace(prediction, boxes_xyxy=prediction.boxes_xyxy * scale)
    drawn = draw_boxes(image, scaled.labelled_boxes(), text_size=TEXT)
    if region is not None:
        x0, y0, x1, y1 = (round(v * scale) for v in region)
        outline = ImageDraw.Draw(drawn)
        outline.rectangle((x0 - 2, y0 - 2, x1 + 2, y1 + 2), outline="black", width=6)
        outline.rectangle((x0, y0, x1, y1), outline="white", width=2)
    return drawn
