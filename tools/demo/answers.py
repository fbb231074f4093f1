"""From what a user typed and clicked to what the page shows. Every mistake becomes one line."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inference.prediction import Prediction
from inference.vocabulary import WordRequest
from tools.demo.detector import DemoDetector, Seen
from tools.demo.drawing import draw, scale_of
from tools.demo.region import (
    MIN_IOU,
    Box,
    crop,
    detection_at,
    detector_scores,
    format_box,
    parse_box,
    query_at,
    query_of_detection,
    teacher_scores,
)
from util.errors import UserError

COLUMNS = ("#", "word", "score", "box")
MAX_SHOWN = 100
MAX_WORDS = 8  # in the two lists of a region


@dataclass(frozen=True)
class Asked:
    """The state of the page's inputs.

    image: the file. words, extend: what was typed for a vocabulary, and whether it extends
    the trained classes. score: the lowest that is shown. box: of the region, '' without one.
    """

    image: str
    words: str
    extend: bool
    score: float
    box: str = ""


@dataclass(frozen=True)
class Chosen:
    """A detection that was clicked: its box as text, the vocabulary and the query that it is of."""

    box: str
    side: str
    query: int


@dataclass(frozen=True)
class Result:
    """One vocabulary's part of the page: line is HTML, rows are those of the table under COLUMNS."""

    drawing: Image.Image | None = None
    line: str = ""
    rows: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RegionResult:
    """The part of the page about a region. The lists hold scores in 0..1 by word, None without."""

    line: str = ""
    crop: np.ndarray | None = None
    teacher: dict[str, float] | None = None
    teacher_line: str = ""
    detector: dict[str, float] | None = None
    detector_line: str = ""

    @property
    def summary(self) -> str:
        """The best word of both in a line, '' without them."""
        if not (self.teacher and self.detector):
            return ""
        (seen, probability), (said, score) = (next(iter(d.items())) for d in (self.teacher, self.detector))
        return note(f"In the box: teacher {seen} {probability:.0%}, detector {said} {score:.2f}. More below.")


def note(text: str) -> str:
    """A line of the page as HTML."""
    return f'<p class="note">{html.escape(text)}</p>'


def problem(text: str) -> str:
    """A line that says what is wrong."""
    return f'<p class="problem" role="alert">{html.escape(text)}</p>'


def parse_words(text: str, extend: bool = False) -> WordRequest:
    """What a vocabulary's text asks for: words between commas or on lines of their own; none, the trained
    classes. Raises UserError for an empty word."""
    words = tuple(part.strip() for line in text.splitlines() if line.strip() for part in line.split(","))
    if "" in words:
        raise UserError(f"Word {words.index('') + 1} of {len(words)} is empty: write words between commas.")
    if not words:
        return WordRequest()
    return WordRequest(add_names=words) if extend else WordRequest(names=words)


class Answers:
    """What the page shows of a detector."""

    def __init__(self, detector: DemoDetector) -> None:
        self.detector = detector

    def image_problem(self, image: str | None) -> str:
        """A line, where there is no image or the file is none; else ''."""
        if not image:
            return problem("Choose an image first.")
        try:
            self.detector.pixels(image)
        except UserError as error:
            return problem(_line_of(error, image))
        return ""

    def result(self, asked: Asked) -> Result:
        """The image, one without a problem, as one vocabulary sees it."""
        try:
            seen = self._see(asked)
        except UserError as error:
            return Result(line=problem(_line_of(error, asked.image)))
        kept = shown(seen, asked.score)
        found = int((seen.prediction.scores >= asked.score).sum())
        line = f"{found} {'detection' if found == 1 else 'detections'} at {asked.score:.2f} or more"
        line += f", the best {MAX_SHOWN} shown" if found > MAX_SHOWN else ""
        line += f", the best has {seen.prediction.scores[0]:.2f}" if not found else ""
        words = "word" if len(seen.names) == 1 else "words"
        line += f" · {len(seen.names)} {words} · {seen.seconds:.2f} s"
        region = _region(asked.box, seen)
        rows = [_row(kept, i) for i in range(len(kept))]
        return Result(draw(seen.pixels, kept, region), note(line), rows)

    def choose_at(self, asked: Asked, side: str, x: float, y: float) -> Chosen | None:
        """The detection that is shown at a point of the drawing; None without one."""
        return self._choose(asked, side, lambda seen, kept: _hit(seen, kept, x, y))

    def choose_row(self, asked: Asked, side: str, number: int) -> Chosen | None:
        """The detection of a row of the table, by its number."""
        return self._choose(asked, side, lambda _, kept: number - 1 if 0 < number <= len(kept) else None)

    def region(self, asked: Asked, side: str, chosen: Chosen | None) -> RegionResult:
        """What teacher and detector say of the region, by the words of vocabulary `side`."""
        try:
            seen = self._see(asked)
            box = parse_box(asked.box, seen.prediction.size)
        except UserError as error:
            return RegionResult(problem(_line_of(error, asked.image)))
        if chosen and (chosen.box, chosen.side) == (asked.box, side):
            query, said = chosen.query, "the query of this detection"
        else:
            there = query_at(seen, box)
            query, match = there.index, there.iou >= MIN_IOU
            said = f"the {'most confident matching' if match else 'nearest'} query, IoU {there.iou:.2f}"
        result = RegionResult(
            crop=crop(seen.pixels, box),
            detector=detector_scores(seen, query, MAX_WORDS),
            detector_line=note(f"Scores of {said}."),
        )
        try:
            teacher = teacher_scores(self.detector.teacher_view(asked.image), seen, box, MAX_WORDS)
        except UserError as error:
            return replace(result, teacher_line=problem(f"There is no teacher to ask: {error}"))
        words = "the one word" if len(seen.names) == 1 else f"the {len(seen.names)} words"
        return replace(result, teacher=teacher, teacher_line=note(f"Probabilities among {words} of {side}."))

    def _see(self, asked: Asked) -> Seen:
        return self.detector.see(asked.image, parse_words(asked.words, asked.extend))

    def _choose(
        self, asked: Asked, side: str, pick: Callable[[Seen, Prediction], int | None]
    ) -> Chosen | None:
        try:
            seen = self._see(asked)
        except UserError:  # the vocabulary's own line says it
            return None
        kept = shown(seen, asked.score)
        row = pick(seen, kept)
        if row is None:
            return None
        height, width = seen.prediction.size
        box: Box = tuple(kept.boxes_xyxy[row].clip(0, (width, height, width, height)).tolist())
        # Detections are best first: row `row` of those shown is row `row` of all.
        return Chosen(format_box(box), side, query_of_detection(seen, row))


def shown(seen: Seen, score: float) -> Prediction:
    """The detections that the page shows."""
    return seen.prediction.select(np.flatnonzero(seen.prediction.scores >= score)[:MAX_SHOWN])


def _region(text: str, seen: Seen) -> Box | None:
    """The region to draw; a wrong one is reported where it was entered."""
    try:
        return parse_box(text, seen.prediction.size) if text.strip() else None
    except UserError:
        return None


def _hit(seen: Seen, kept: Prediction, x: float, y: float) -> int | None:
    scale = scale_of(seen.pixels)
    return detection_at(kept.boxes_xyxy, x / scale, y / scale)


def _row(kept: Prediction, i: int) -> list[Any]:
    box = ", ".join(str(round(v)) for v in kept.boxes_xyxy[i].tolist())
    return [i + 1, kept.names[i], f"{kept.scores[i]:.2f}", box]


def _line_of(error: UserError, image: str) -> str:
    # Without the program's flag, which the page lacks, and the folder in which an upload lies.
    line = str(error).removeprefix("add_names: ").removeprefix("names: ")
    return line.replace(image, Path(image).name)
