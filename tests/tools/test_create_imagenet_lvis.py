"""The JSON from folders and tars: same bytes however it was made, and made on after a kill."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.json_reader import read_annotations
from datasets.annotations.lvis_v1 import lvis_v1_classes
from tests.source_files import ROOT
from tools.create_imagenet_lvis import main
from util.errors import UserError

# Two rare classes, a frequent one, one that ImageNet has no id for, a folder of no class.
BANJO, BARGE, BANANA = "n02787622", "n02792552", "n07753592"
FOLDERS = {BANJO: 3, BARGE: 2, BANANA: 4, "n00000001": 2}
NAME = "imagenet_lvis_image_info.json"


def draw(path, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """DATA/images with class folders; image i of a class is 20 + i high and 30 wide."""
    for folder, count in FOLDERS.items():
        for i in range(count):
            draw(tmp_path / "DATA" / "images" / folder / f"{folder}_{i}.JPEG", (20 + i, 30))
    return tmp_path / "DATA" / "images"


def pack(folders, target, one=False):
    """The same images in a tar per class, or in one."""
    target.mkdir(parents=True)
    if one:
        with tarfile.open(target / "images.tar", "w") as file:
            file.add(folders, "images")
        return target / "images.tar"
    (target / "images").mkdir()
    for folder in FOLDERS:
        with tarfile.open(target / "images" / f"{folder}.tar", "w") as file:
            for path in sorted((folders / folder).iterdir()):
                file.add(path, path.name)
    return target / "images"


def test_the_json_is_detics(folders, capsys):
    assert main([str(folders), "--workers", "1"]) == 0
    content = json.loads((folders.parent / NAME).read_text())
    assert list(content) == ["categories", "images", "annotations"] and content["annotations"] == []
    lvis = [c.to_json() for c in lvis_v1_classes()]
    assert [{**c, "image_count": 0} for c in content["categories"]] == [{**c, "image_count": 0} for c in lvis]
    ids = {c["name"]: c["id"] for c in lvis}
    counts = {c["id"]: c["image_count"] for c in content["categories"] if c["image_count"]}
    assert counts == {ids["banana"]: 4, ids["banjo"]: 3, ids["barge"]: 2}
    assert content["images"][4] == {
        "id": 5,
        "file_name": f"{BANJO}/{BANJO}_0.JPEG",
        "pos_category_ids": [ids["banjo"]],
        "width": 30,
        "height": 20,
    }
    assert [i["id"] for i in content["images"]] == list(range(1, 10))
    assert len(read_annotations(folders.parent / NAME)) == 9
    printed = capsys.readouterr().out
    assert "classes with images: 3 of 1203 (997 have a WordNet id)" in printed
    assert "rare: 2 of 337 (277 have a WordNet id)" in printed
    assert "images: 9; 2 to 4 a class, median 3" in printed and "that match no class: 1" in printed
    assert f"--options imagenet_path={folders.parent}" in printed
    report = (folders.parent / "imagenet_lvis_image_info_report.txt").read_text()
    assert "n00000001" in report and "n02682922\taerosol_can" in report
    assert sorted(p.name for p in folders.parent.iterdir()) == [NAME, f"{NAME[:-5]}_report.txt", "images"]


def test_folders_tars_and_one_tar_give_the_same_bytes_with_any_number_of_processes(folders, tmp_path):
    sources = [folders, pack(folders, tmp_path / "tars"), pack(folders, tmp_path / "one", one=True)]
    for source, workers in zip(sources, "112", strict=True):
        main([str(source), "--workers", workers])
    contents = {(source.parent / NAME).read_bytes() for source in sources}
    assert len(contents) == 1


def test_damage_is_named_and_the_rest_goes_on(folders, tmp_path, capsys):
    (folders / BANANA / f"{BANANA}_0.JPEG").write_bytes(b"")
    whole = (folders / BANANA / f"{BANANA}_1.JPEG").read_bytes()
    (folders / BANANA / f"{BANANA}_1.JPEG").write_bytes(whole[: len(whole) // 2])
    (folders / BANANA / "notes.txt").write_text("no image")
    tars = pack(folders, tmp_path / "tars")
    (tars / f"{BANJO}.tar").write_bytes(b"\x1f\x8b" + b"compressed" * 100)
    cut = (tars / f"{BARGE}.tar").read_bytes()
    (tars / f"{BARGE}.tar").write_bytes(cut[: 3 * 512 + 700])
    main([str(tars), "--workers", "1"])
    content = json.loads((tars.parent / NAME).read_text())
    names = [i["file_name"] for i in content["images"]]
    assert names == [f"{BANANA}/{BANANA}_{i}.JPEG" for i in (2, 3)] + [f"{BARGE}/{BARGE}_0.JPEG"]
    assert "failures: 4" in capsys.readouterr().out
    report = (tars.parent / f"{NAME[:-5]}_report.txt").read_text()
    assert f"{BANANA}/{BANANA}_0.JPEG\tis empty" in report
    assert f"{BANANA}/{BANANA}_1.JPEG\tdoes not decode" in report
    assert f"{BANJO}.tar\t" in report and "is compressed (gzip)" in report
    assert f"{BARGE}.tar\tends at" in report


def test_verify_finds_damage_within(folders):
    path = folders / BARGE / "n02792552_2.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    images = Counter()
    for options in ([], ["--verify"]):
        main([str(folders), "--workers", "1", *options])
        images[bool(options)] = len(json.loads((folders.parent / NAME).read_text())["images"])
    assert images == {False: 10, True: 9}


def run(folders):
    command = [sys.executable, str(ROOT / "tools/create_imagenet_lvis.py"), str(folders), "--workers", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_after_a_kill_finished_classes_are_not_done_again(folders):
    # The last class takes seconds: the program is in it when it is killed.
    image = next((folders / BARGE).iterdir())
    more = [folders / BARGE / f"more_{number}.JPEG" for number in range(30_000)]
    for path in more:
        os.link(image, path)
    parts = folders.parent / f".{NAME}.parts"
    first = run(folders)
    deadline = time.monotonic() + 60
    while not (parts.is_dir() and len(list(parts.glob("n*.json"))) == 2):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (folders.parent / NAME).exists()
    for path in more:
        path.unlink()
    # Would be noticed if they were looked at again: they are no images any more.
    status = (folders / BANJO).stat()
    for path in (folders / BANJO).iterdir():
        path.write_bytes(b"")
    os.utime(folders / BANJO, ns=(status.st_atime_ns, status.st_mtime_ns))
    printed = run(folders).communicate()[0]
    assert "2 of 3 classes were finished before" in printed and "failures: 0" in printed
    assert len(json.loads((folders.parent / NAME).read_text())["images"]) == 9
    assert not parts.exists()


def test_what_was_changed_meanwhile_is_done_again(folders, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tools.create_imagenet_lvis.write_entries", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main([str(folders), "--workers", "1"])
    draw(folders / BANJO / "new.JPEG")
    (folders.parent / f".{NAME}.parts" / f"{BARGE}.json").write_text('{"identity": ')
    main([str(folders), "--workers", "1"])
    assert "1 of 3 classes were finished before" in capsys.readouterr().out
    assert len(json.loads((folders.parent / NAME).read_text())["images"]) == 10


def test_images_that_are_mended_in_place_are_looked_at_again(tmp_path):
    path = tmp_path / "DATA" / "images" / BANJO / "1.JPEG"
    draw(path)
    whole, status = path.read_bytes(), path.parent.stat()
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no image in its 1 classes can be used"):
        main([str(path.parents[1]), "--workers", "1"])
    path.write_bytes(whole)
    os.utime(path.parent, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main([str(path.parents[1]), "--workers", "1"]) == 0


def test_a_class_that_cannot_be_read_is_named(folders, monkeypatch):
    real = os.scandir

    def refused(path="."):
        if str(path).endswith(BANJO):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", refused)  # root may read everything
    main([str(folders), "--workers", "1"])
    assert len(json.loads((folders.parent / NAME).read_text())["images"]) == 6
    report = (folders.parent / f"{NAME[:-5]}_report.txt").read_text()
    assert f"{BANJO}\t{folders / BANJO}: Permission denied" in report


def test_own_classes_by_an_annotation_file(folders, tmp_path):
    annotations = tmp_path / "own.json"
    categories = [{"id": 7, "name": "Banjo", "colour": "brown"}, {"id": 3, "name": "plantain"}]
    annotations.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    draw(folders / "Plantain" / "1.JPEG")
    main([str(folders), "--annotations", str(annotations), "--output", str(tmp_path / "own" / NAME)])
    content = json.loads((tmp_path / "own" / NAME).read_text())
    assert [i["pos_category_ids"] for i in content["images"]] == [[3], [7], [7], [7]]
    assert content["categories"][1] == {**categories[0], "image_count": 3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d / "nowhere", "no such folder or tar"),
        (lambda d: (d / "empty").mkdir() or d / "empty", "neither a folder of class folders or tars"),
        (
            lambda d: (d / "a" / "zzz").mkdir(parents=True) or d / "a",
            "none of its 1 folders or tars matches a class",
        ),
        (
            lambda d: (d / "b" / BANJO).mkdir(parents=True) or d / "b",
            "no image in its 1 classes can be used",
        ),
    ],
)
def test_what_holds_nothing_is_one_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        main([str(Path(make(tmp_path))), "--workers", "1"])
