"""The annotation benchmark on a small file: both sides see every box, and the rows have their form."""

import pytest

from benchmarks import annotations
from benchmarks.lvis_files import write_lvis


def test_both_sides_see_every_box(tmp_path, monkeypatch):
    monkeypatch.setenv("RICHSEM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "train.json"
    write_lvis(path, 800, 6000)
    assert path.stat().st_size > annotations.open_annotations.__defaults__[0]
    sides = (annotations.count_dicts, annotations.open_store, annotations.read_store)
    assert [side(path) for side in sides] == [6000] * 3
    dicts = annotations.DictImages(annotations.load_lvis(path))
    store = annotations.StoreImages(annotations.open_annotations(path))
    assert [dicts[i] for i in range(800)] == [store[i] for i in range(800)]
    annotations.clear(tmp_path / "cache")
    assert not list((tmp_path / "cache" / "annotations").iterdir())


@pytest.mark.ci
def test_a_worker_that_reads_columns_grows_less(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations.time, "sleep", lambda _: None)
    options = [
        "--images",
        "800",
        "--boxes",
        "6000",
        "--folder",
        str(tmp_path),
        "--only",
        "annotations/worker",
    ]
    (row,) = annotations.main([*options, "--json", str(tmp_path / "out.json")])["rows"]
    assert (row["case"], row["baseline"], row["metric"]) == ("annotations/worker", "lvis+dicts", "memory")
    assert 0 <= row["candidate"] < row["reference"] / 5
    assert (tmp_path / "out.json").is_file()


@pytest.mark.ci
def test_small_files_are_read_whole_by_every_side(tmp_path, monkeypatch):
    monkeypatch.setitem(annotations.SMALL_FILES, "annotations/4MB", (600, False))
    rows = annotations.main(["--only", "annotations/4MB", "--repeats", "1", "--folder", str(tmp_path)])[
        "rows"
    ]
    assert {(row["case"], row["metric"]) for row in rows} == {
        ("annotations/4MB", "time"),
        ("annotations/4MB", "memory"),
    }
    assert "json" in {row["baseline"] for row in rows} and not list(tmp_path.iterdir())
