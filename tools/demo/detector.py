"""A trained detector that is asked for any vocabulary on any image. Nothing is loaded or computed twice."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.annotations.json_schema import typed_categories
from inference.inputs import read_image
from inference.prediction import Prediction
from inference.torch_model import TorchModel
from inference.vocabulary import WordRequest, make_vocabulary
from models.richsem.build import Clip, clip_of
from models.richsem.load import (
    checkpoint_config,
    load_trained,
    open_checkpoint,
    text_rows,
    with_vocabulary,
)
from models.richsem.teacher import SemanticTargets, Teacher
from models.richsem.vocabulary import check_words
from util.boxes import box_cxcywh_to_xyxy
from util.distributed import choose_device
from util.errors import UserError
from util.structures import Target, Targets

_VOCABULARIES = 4  # kept ready; each may have a backbone of its own, rearranged for the CPU
_ANSWERS = 8  # kept, so that moving the threshold or a box computes nothing
_IMAGES = 4  # kept, decoded


@dataclass(frozen=True, eq=False)
class Seen:
    """What the detector says of one image, asked for one vocabulary of C words.

    model:      that was asked.
    pixels:     (H, W, 3) uint8 RGB, upright.
    prediction: its detections of any score, best first.
    names:      (C,) the words.
    query_scores: (Q, C) float32, every query's score for every word, 0..1.
    query_boxes_xyxy: (Q, 4) float32, pixels.
    seconds:    that it took.
    """

    model: TorchModel
    pixels: np.ndarray
    prediction: Prediction
    names: tuple[str, ...]
    query_scores: np.ndarray
    query_boxes_xyxy: np.ndarray
    seconds: float


class DemoDetector:
    """A checkpoint's model, loaded once; safe to use from several threads.

    device, annotations: as `inference.load.load_predictor`. Raises UserError as that does.
    """

    def __init__(self, checkpoint: str | Path, device: str = "auto", annotations: Path | None = None) -> None:
        opened = open_checkpoint(checkpoint)
        self.config = checkpoint_config(opened)
        self.device = choose_device(device)
        self._categories = typed_categories(annotations)
        names_by_id = {c.id: c.name for c in self._categories} or None
        self._trained = load_trained(opened, self.config, names_by_id, self.device)
        # Several times the size of the weights, and of no use here.
        self._checkpoint = replace(opened, optimizer=None, ema=None)
        self._lock = threading.RLock()
        self._clip_error = ""
        self._model = lru_cache(_VOCABULARIES)(self._make_model)
        self._pixels = lru_cache(_IMAGES)(lambda image: read_image(image)[0])
        self._view = lru_cache(_IMAGES)(self._make_view)
        self._seen = lru_cache(_ANSWERS)(self._look)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The trained classes."""
        model = self._model(WordRequest())
        return tuple(model.class_names[i] for i in used_columns(model))

    def pixels(self, image: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB of an image file, upright. Raises ImageError where it is none."""
        with self._lock:
            return self._pixels(image)

    def see(self, image: str, request: WordRequest) -> Seen:
        """The answer for an image file. `request` without words asks for the trained classes.

        Raises ImageError for a file that is no image, and UserError for words that do not fit.
        """
        with self._lock:
            return self._seen(image, request)

    def teacher_view(self, image: str) -> SemanticTargets:
        """What CLIP, the teacher of training, sees in an image file: asked for boxes, it embeds them.

        It sees the image as in training, resized for the detector. Raises UserError where there is no CLIP.
        """
        with self._lock:
            if not self.config.use_language:
                raise UserError("this checkpoint was trained without CLIP (use_language=False)")
            return self._view(image)

    def _make_view(self, image: str) -> SemanticTargets:
        images = self._model(WordRequest()).prepare([self._pixels(image)])
        size = images.sizes[0]
        nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 0, size, size)
        return self._teacher(images, Targets.from_list([nothing]).to(self.device))

    @cached_property
    def _teacher(self) -> Teacher:
        visual: Any = self._clip().model.visual  # open_clip's models are not typed
        return Teacher(visual).to(self.device)

    def _clip(self) -> Clip:
        # A download that failed is not tried again at every click.
        if self._clip_error:
            raise UserError(self._clip_error)
        try:
            return self._loaded_clip
        except UserError as error:
            self._clip_error = str(error)
            raise

    @cached_property
    def _loaded_clip(self) -> Clip:
        return clip_of(self._checkpoint, self.config)

    def _make_model(self, request: WordRequest) -> TorchModel:
        trained = self._trained
        if request:
            vocabulary = make_vocabulary(request, trained.class_names, trained.unused, self._categories)
            check_words(trained.model, vocabulary)
            new, rows = vocabulary.new_names, None
            if new:
                rows = text_rows(trained, self._checkpoint, self.config, new, clip=self._clip())
            trained = with_vocabulary(trained, self.config, vocabulary, rows)
        return TorchModel(trained, self._checkpoint, self.config, self.device)

    def _look(self, image: str, request: WordRequest) -> Seen:
        model = self._model(request)
        pixels = self._pixels(image)
        start = time.perf_counter()
        output = model.output(model.prepare([pixels]))
        size = pixels.shape[:2]
        prediction = model.predictions(output, [size])[0]
        seconds = time.perf_counter() - start
        used = used_columns(model)
        scale = torch.tensor((size[1], size[0], size[1], size[0]))
        boxes_xyxy = box_cxcywh_to_xyxy(output.final.boxes_cxcywh[0].float().cpu()) * scale
        return Seen(
            model,
            pixels,
            prediction,
            tuple(model.class_names[i] for i in used),
            output.final.logits[0].float().sigmoid().cpu().numpy()[:, used],
            boxes_xyxy.numpy(),
            seconds,
        )


def used_columns(model: TorchModel) -> list[int]:
    """The columns that are a class, in order: an official checkpoint has some that are none."""
    return [i for i in range(len(model.class_names)) if i not in model.trained.unused]
