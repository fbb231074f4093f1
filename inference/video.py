"""Video files and cameras to frames, and frames to a video file, by PyAV. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.images.preprocess import ImageError
from util.errors import UserError, first_line
from util.optional import require

# Cameras by system: FFmpeg's input device, and what it calls the Nth one.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("vfwcap", "{}"),
}
_DEFAULT_RATE = Fraction(25)


class VideoFrame(NamedTuple):
    """pixels: (H, W, 3) uint8 RGB, upright.  number: from 0.  seconds: since the start.
    rate: frames a second of the whole video, on average.
    """

    pixels: np.ndarray
    number: int
    seconds: float
    rate: Fraction


def require_video(path: str) -> None:
    """Raises UserError, with the pip line, where PyAV is missing, which the video at `path` needs."""
    try:
        require("av", "video")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def frame_count(path: str) -> int:
    """Frames that a video file says it has; 0 where it does not say, or is none."""
    try:
        with _opened(path) as container:
            return int(container.streams.video[0].frames)
    except UserError:
        return 0


def read_video(path: str) -> Iterator[VideoFrame]:
    """The frames of a video file, or of a camera (`camera:0`) until it is stopped.

    Raises ImageError for a file that is no video or has no frames, and after its last good frame for one
    that is damaged; UserError where PyAV is missing.
    """
    av = require("av", "video")
    index = -1
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = stream.average_rate or _DEFAULT_RATE
        try:
            for index, frame in enumerate(container.decode(stream)):
                seconds = float(frame.time) if frame.time is not None else float(index / rate)
                # A phone's rotation, in degrees counter-clockwise.
                turns = round(getattr(frame, "rotation", 0) / 90)
                pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                yield VideoFrame(pixels, index, seconds, rate)
        except (av.error.FFmpegError, ValueError) as error:
            raise ImageError(f"{path}: does not decode after frame {index + 1} ({_reason(error)})") from None
    if index < 0:
        raise ImageError(f"{path}: a video without frames")


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An open container that has a video stream."""
    av = require("av", "video")
    name, device = path, None
    if path.startswith("camera:"):
        device, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
        name = pattern.format(path.removeprefix("camera:"))
    try:
        container = av.open(name, format=device)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = "no such camera, or it is in use" if device else "cannot be read as a video"
        raise ImageError(f"{path}: {what} ({_reason(error)})") from None
    with container:
        if not container.streams.video:
            raise ImageError(f"{path}: has no video stream")
        yield container


class VideoWriter:
    """Frames to an MP4: H.264 where FFmpeg has x264, else MPEG-4. The first frame's size is the video's.

    rate: frames a second; a video of varying rate comes out at its average.
    Raises UserError where PyAV is missing or the file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = require("av", "video")
        self.path = path
        self._codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        # MPEG-4 stores rates in 16 bits.
        self._rate = rate.limit_denominator(1001)
        self._stream: Any = None
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._named_errors():
            self._container = self._av.open(str(path), "w")

    def add(self, pixels: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB. The format has even sides: an odd one gets its last row or column twice."""
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._container.add_stream(self._codec, rate=self._rate)
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        with self._named_errors():
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what is left, and the index without which the file cannot be played."""
        with self._named_errors():
            if self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: cannot be written ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """What FFmpeg says, without its number and the file."""
    return getattr(error, "strerror", None) or first_line(error)
