"""Videos: frames as they were written, upright, one line for what is none."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from datasets.images.preprocess import ImageError
from inference.video import VideoWriter, frame_count, read_video, require_video
from util.errors import UserError


def test_without_pyav_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"clip\.mp4: av .*"):
        require_video("clip.mp4")


def make_video(path, frames=5, size=(48, 64), rate=Fraction(10)):
    """Frames of one grey each, brighter and brighter."""
    writer = VideoWriter(path, rate)
    for i in range(frames):
        writer.add(np.full((*size, 3), 40 * i, np.uint8))
    writer.close()
    return str(path)


def write_sound(av, container):
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 8000
    container.mux([*stream.encode(frame), *stream.encode()])


@pytest.mark.ci
def test_frames_come_as_they_were_written(tmp_path):
    pytest.importorskip("av")
    path = make_video(tmp_path / "a.mp4")
    frames = list(read_video(path))
    assert [f.number for f in frames] == [0, 1, 2, 3, 4] and frame_count(path) == 5
    assert [f.seconds for f in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {f.rate for f in frames} == {Fraction(10)}
    for i, frame in enumerate(frames):
        assert frame.pixels.shape == (48, 64, 3) and abs(frame.pixels.mean() - 40 * i) < 4
    odd = make_video(tmp_path / "odd.mp4", size=(47, 63))
    assert next(read_video(odd)).pixels.shape == (48, 64, 3)


@pytest.mark.ci
def test_what_is_no_video_is_named(tmp_path):
    av = pytest.importorskip("av")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ImageError, match=r"text\.mp4: cannot be read as a video"):
        list(read_video(str(text)))
    assert frame_count(str(text)) == 0
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        write_sound(av, container)
    with pytest.raises(ImageError, match=r"sound\.mp4: has no video stream"):
        list(read_video(str(sound)))
    with pytest.raises(ImageError, match="camera:93: no such camera"):
        list(read_video("camera:93"))


@pytest.mark.ci
def test_a_video_without_frames_is_named(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "empty.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        write_sound(av, container)
    with pytest.raises(ImageError, match=r"empty\.mkv: a video without frames"):
        list(read_video(str(path)))


@pytest.mark.ci
def test_the_frames_before_the_damage_are_kept(tmp_path):
    pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 255, (60, 96, 128, 3), dtype=np.uint8)
    writer = VideoWriter(tmp_path / "a.mp4", Fraction(10))
    for pixels in noise:
        writer.add(pixels)
    writer.close()
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 5000] = bytes(5000)
    (tmp_path / "a.mp4").write_bytes(content)
    frames = []
    with pytest.raises(ImageError, match=r"a\.mp4: does not decode after frame \d+ \(Invalid data"):
        for frame in read_video(str(tmp_path / "a.mp4")):
            frames.append(frame.number)
    assert 0 < len(frames) < 60


@pytest.mark.ci
def test_a_video_in_a_folder_that_cannot_be_written(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written"):
        make_video(tmp_path / "a.mp4")
