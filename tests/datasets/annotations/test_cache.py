"""The kept columns: never stale, never half, made once, and no reason to fail."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from benchmarks.lvis_files import write_lvis
from datasets.annotations import cache as annotation_cache
from datasets.annotations.cache import open_annotations
from datasets.annotations.json_reader import read_annotations
from util.errors import UserError
from util.logging import get_logger


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def path(tmp_path):
    write_lvis(tmp_path / "train.json", 30, 200, classes=20)
    return tmp_path / "train.json"


def opened(path):
    return open_annotations(path, smallest=0)


def later(monkeypatch):
    """The next calls happen a minute from now: what was just written has settled."""
    now = time.time() + 60
    monkeypatch.setattr(annotation_cache.time, "time", lambda: now)


def forbid(monkeypatch, name):
    def fail(*_):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(annotation_cache, name, fail)


def same(a, b):
    arrays = ("image_ids", "sizes", "box_offsets", "boxes_xywh", "areas", "category_index", "annotation_ids")
    assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in (*arrays, "ignore", "crowd"))
    for name in ("negatives", "not_exhaustive", "positives"):
        assert np.array_equal(getattr(a, name).values, getattr(b, name).values)
        assert np.array_equal(getattr(a, name).offsets, getattr(b, name).offsets)
    assert [a.file_names[i] for i in range(len(a))] == [b.file_names[i] for i in range(len(b))]
    assert (a.name, a.categories, a.federated, a.warnings) == (b.name, b.categories, b.federated, b.warnings)


def replace_number(path, old, new):
    """Edits the file in place: same size, inode and time of modification."""
    before = path.stat()
    text = path.read_text()
    assert old in text and len(old) == len(new)
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_ino == before.st_ino


def test_a_later_start_reads_nothing_but_the_columns(path, folder, monkeypatch):
    expected = read_annotations(path)
    later(monkeypatch)
    same(opened(path), expected)
    forbid(monkeypatch, "read_annotations")
    forbid(monkeypatch, "digest_of")
    same(opened(path), expected)


def test_columns_are_views_of_the_file_that_nobody_can_write(path, folder):
    store = opened(path)
    if os.path.exists("/proc/self/maps"):
        assert str(folder) in Path("/proc/self/maps").read_text()
    with pytest.raises(ValueError, match="read-only"):
        store.boxes_xywh[0] = 0


def test_a_change_that_keeps_size_and_time_is_seen(path, folder, monkeypatch):
    later(monkeypatch)
    assert opened(path).category_ids[0] == 1
    text = path.read_text()
    replace_number(path, '"height": 480', '"height": 481')
    later(monkeypatch)
    assert opened(path).sizes[:, 0].max() in (481, 640) and 480 not in opened(path).sizes[:, 0]
    path.write_text(text)
    assert 480 in opened(path).sizes[:, 0]


def test_changes_at_the_same_tick_of_the_clock_are_seen(path, folder, monkeypatch):
    stamp = annotation_cache._Stamp.of(path)
    # As if the file system's clock had not moved between any of the writes.
    monkeypatch.setattr(annotation_cache._Stamp, "of", classmethod(lambda *_: stamp))
    for number in (480, 481, 482):
        assert number in opened(path).sizes[:, 0]
        replace_number(path, f'"height": {number}', f'"height": {number + 1}')


def test_a_copy_is_known_by_its_content(path, folder, tmp_path, monkeypatch):
    store = opened(path)
    copy = tmp_path / "copy.json"
    copy.write_bytes(path.read_bytes())
    forbid(monkeypatch, "read_annotations")
    assert opened(copy).name == "copy.json"
    assert np.array_equal(opened(copy).areas, store.areas)


@pytest.mark.parametrize("damage", ["cut", "emptied", "other content", "no header"])
def test_a_damaged_entry_is_named_and_rebuilt(path, folder, damage, caplog, monkeypatch):
    later(monkeypatch)
    expected = opened(path)
    entry = next(folder.glob("*.safetensors"))
    content = entry.read_bytes()
    other = content.replace(b"box_offsets", b"box_offsetz", 1)
    spoiled = {"cut": content[:-9], "emptied": b"", "other content": other, "no header": bytes(100)}
    entry.unlink()
    entry.write_bytes(spoiled[damage])
    same(opened(path), read_annotations(path))
    assert f"{entry}: is damaged (" in caplog.text
    same(opened(path), expected)


def test_no_flipped_bit_is_served(path, folder, caplog, monkeypatch):
    later(monkeypatch)
    expected = opened(path)
    entry = next(folder.glob("*.safetensors"))
    content, rng = entry.read_bytes(), np.random.default_rng(0)
    for place in (0, 9, *rng.integers(0, len(content), 40).tolist(), len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        entry.unlink()
        entry.write_bytes(flipped)
        caplog.clear()
        same(opened(path), expected)
        assert f"{entry}: is damaged (" in caplog.text


def test_an_entry_that_is_replaced_between_its_check_and_its_use(path, folder, caplog, monkeypatch):
    later(monkeypatch)
    expected = opened(path)
    entry, check = next(folder.glob("*.safetensors")), annotation_cache._checksum

    def replacing(checked):
        result = check(checked)
        if checked == entry and not caplog.text:
            other = entry.with_name("other")
            other.write_bytes(entry.read_bytes()[:-8] + b"damaged!")
            other.replace(entry)
        return result

    monkeypatch.setattr(annotation_cache, "_checksum", replacing)
    same(opened(path), expected)
    assert "was replaced while it was read" in caplog.text


def test_whatever_the_libraries_raise_is_damage(path, folder, caplog, monkeypatch):
    later(monkeypatch)
    expected = opened(path)

    def fail(*_):
        raise RuntimeError("unable to mmap 80 bytes from file")

    monkeypatch.setattr(annotation_cache, "safe_open", fail)
    same(opened(path), expected)
    assert "is damaged (unable to mmap" in caplog.text and "stays in memory" in caplog.text


def test_old_entries_go(path, folder, monkeypatch):
    later(monkeypatch)
    monkeypatch.setattr(annotation_cache, "MOST_ENTRIES", 3)
    contents = []
    for number in range(5):
        replace_number(path, '"height": 480', f'"height": 4{number}0') if number else None
        opened(path)
        contents.append(path.read_bytes())
        path.write_bytes(contents[0])
        opened(path)  # it is used every time
    kept = {p.name.partition("-")[0] for p in folder.glob("*.safetensors")}
    assert kept == {hashlib.sha256(contents[i]).hexdigest() for i in (0, 3, 4)}
    old = folder / ".left.tmp"
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    lost = folder / "lost.json"
    lost.write_text(json.dumps({"path": "x", "stamp": [], "digest": "0" * 64}))
    replace_number(path, '"height": 480', '"height": 470')
    opened(path)
    assert not old.exists() and not lost.exists() and not list(folder.glob("*.lock"))
    assert len(list(folder.glob("*.safetensors"))) == 3 and len(list(folder.glob("*.json"))) == 1


def test_an_entry_of_another_version_is_left_alone(path, folder, monkeypatch):
    later(monkeypatch)
    opened(path)
    old = next(folder.glob("*.safetensors"))
    old.write_bytes(b"of another version")
    monkeypatch.setattr(annotation_cache, "VERSION", annotation_cache.VERSION + 1)
    same(opened(path), read_annotations(path))
    assert old.read_bytes() == b"of another version" and len(list(folder.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_note_is_named_and_rebuilt(path, folder, content, caplog, monkeypatch):
    later(monkeypatch)
    opened(path)
    note = next(folder.glob("*.json"))
    note.write_text(content)
    same(opened(path), read_annotations(path))
    assert f"{note}: is damaged (" in caplog.text and json.loads(note.read_text())["digest"]


def test_what_is_odd_about_a_file_is_said_at_every_start(path, folder, caplog):
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 10**6
    path.write_text(json.dumps(content))
    for _ in range(2):
        caplog.clear()
        assert len(opened(path).areas) == 199
        assert caplog.text.count("1 annotations belong to images that it does not list") == 1


def test_small_files_are_not_kept(path, folder):
    same(open_annotations(path), read_annotations(path))
    assert not folder.exists()


def test_a_folder_that_cannot_be_used_is_no_reason_to_stop(path, folder, caplog):
    # Stands in for one without permission, which root would not warning.
    folder.parent.write_text("no folder")
    same(opened(path), read_annotations(path))
    assert caplog.text.count("\n") == 1 and "cannot cache its columns (" in caplog.text


def test_a_full_disk_is_no_reason_to_stop(path, folder, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation_cache, "save_file", full)
    same(opened(path), read_annotations(path))
    assert "cannot be kept ([Errno 28] No space left on device); train.json stays in memory" in caplog.text
    assert not list(folder.glob("*.safetensors")) and not list(folder.glob(".*.tmp"))


def test_a_file_that_ends_early_leaves_nothing_behind(path, folder):
    path.write_text(path.read_text()[:-200])
    with pytest.raises(UserError, match=r"train\.json: ends early"):
        opened(path)
    assert not list(folder.glob("*.safetensors")) and not list(folder.glob("*.json"))


def test_a_change_while_reading_stops(path, folder, monkeypatch):
    def read(name):
        replace_number(path, '"height": 480', '"height": 481')
        return read_annotations(name)

    monkeypatch.setattr(annotation_cache, "read_annotations", read)
    with pytest.raises(UserError, match="changed while it was being read"):
        opened(path)
    assert not list(folder.glob("*.safetensors"))


def test_processes_that_start_together_read_the_file_once(path, folder, tmp_path, monkeypatch):
    def slowly(name):
        with (tmp_path / "reads").open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return read_annotations(name)

    monkeypatch.setattr(annotation_cache, "read_annotations", slowly)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=opened, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert (tmp_path / "reads").read_text() == "x"
    same(opened(path), read_annotations(path))


def test_a_process_killed_while_writing_leaves_nothing_that_counts(path, folder, monkeypatch):
    def die(_, name, *__):
        name.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(annotation_cache, "save_file", die)
    process = multiprocessing.get_context("fork").Process(target=opened, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(list(folder.glob(".*.tmp"))) == 1
    monkeypatch.undo()
    monkeypatch.setenv("RICHSEM_CACHE", str(folder.parent))
    same(opened(path), read_annotations(path))
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that cannot be read")
def test_an_unreadable_file_is_an_error_that_does_not_blame_the_cache(folder, caplog):
    with pytest.raises(UserError, match="/proc/self/mem: cannot be read"):
        opened(Path("/proc/self/mem"))
    assert "cannot cache" not in caplog.text


def test_who_waits_for_another_process_says_so(path, folder, caplog, monkeypatch):
    monkeypatch.setattr(annotation_cache, "_PATIENCE", 0.01)
    folder.mkdir(parents=True)
    entry = folder / f"{annotation_cache.digest_of(path)}-v{annotation_cache.VERSION}.lock"
    other = FileLock(entry)
    other.acquire()
    warn = get_logger().warning

    def release(*arguments):
        warn(*arguments)
        other.release()

    monkeypatch.setattr(get_logger(), "warning", release)
    same(opened(path), read_annotations(path))
    assert "another process is reading this file; waiting for it" in caplog.text
