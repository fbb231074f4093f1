"""Every fault that the doctor knows, made and found, with its severity; healthy data stays quiet."""

import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.datasets import tiny
from tests.datasets.annotations.test_yolo import write_yolo
from tests.fixtures import require_fixture
from tools.data_doctor import images as images
from tools.data_doctor import machine
from tools.doctor import main


@pytest.fixture(autouse=True)
def _shared_memory(monkeypatch):
    """Whatever this machine has."""
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 2**40)


@pytest.fixture
def data(tmp_path):
    """Healthy: `tiny`, with a grain of noise in every image so that none is another's copy."""
    root = tiny.write_all(tmp_path / "DATA", train=5, val=3, image_level=6)
    for seed, path in enumerate(sorted(root.rglob("*.png"))):
        pixels = np.array(Image.open(path))
        pixels[:3, :3] = np.random.default_rng(seed).integers(0, 256, (3, 3, 3))
        Image.fromarray(pixels).save(path)
    return root


def diagnose(data, *options):
    """(exit status, [(severity, where, what, examples)])."""
    out = data.parent / "found.json"
    status = main([str(data), "--plot", str(data.parent / "tail.png"), "--json", str(out), *options])
    return status, [
        (f["severity"], f["where"], f["what"], f["examples"]) for f in json.loads(out.read_text())
    ]


def spoil(data, split, change):
    path = data / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_healthy_data_gets_a_clean_bill(data, capsys):
    status, findings = diagnose(data, "--decode")
    assert status == 0 and {f[0] for f in findings} == {"note"}
    assert ("note", "image-level", "6 images of 3 of 3 classes, 1 of 1 rare ones", []) in findings
    assert "Nothing is wrong: no errors, no warnings." in capsys.readouterr().out
    with Image.open(data.parent / "tail.png") as plot:
        assert plot.width > 500


ANNOTATIONS = [
    (lambda c: c["images"].append(c["images"][0]), 2, "1 image ids are listed more than once"),
    (lambda c: c["images"].append(c["images"][0] | {"id": 77}), 1, "1 images are listed more than once"),
    (lambda c: c["images"][0].update(id="one"), 2, "1 entries are invalid"),
    (lambda c: c["images"][0].update(id=2**64), 2, "1 entries are invalid"),
    (lambda c: c["images"][0].update(height=float("inf")), 2, "1 entries are invalid"),
    (lambda c: c["images"][0].update(file_name=5), 2, "1 entries are invalid"),
    (lambda c: c["annotations"][0].update(image_id=2**64), 2, "1 entries are invalid"),
    (lambda c: c["annotations"][0].update(bbox=[10**400, 2, 3, 4]), 2, "1 entries are invalid"),
    (lambda c: c.update(categories=["cat"]), 2, "1 entries are invalid"),
    (lambda c: c["categories"].append({"id": [9], "name": "pink"}), 2, "1 entries are invalid"),
    (lambda c: c["categories"].append({"id": 9, "name": ["pink"]}), 2, "1 entries are invalid"),
    (lambda c: c["annotations"][0].update(category_id="one"), 2, "1 entries are invalid"),
    (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), 2, "1 entries are invalid"),
    (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
        1,
        "1 boxes contain NaN or infinity",
    ),
    (
        lambda c: c["annotations"][0].update(category_id=4),
        2,
        "1 annotations are of a class that is not listed",
    ),
    (lambda c: c["annotations"][0].update(image_id=4444), 1, "1 annotations belong to images that are not"),
    (lambda c: c["annotations"][1].update(id=1), 1, "1 annotation ids are listed more than once"),
    (lambda c: c["annotations"][0].update(bbox=[5, 5, 0, 9]), 1, "1 boxes have no width or height"),
    (lambda c: c["annotations"][0].update(bbox=[500, 5, 9, 9]), 1, "1 boxes lie outside their image"),
    (lambda c: c["annotations"][0].update(bbox=[70, 50, 20, 9]), 1, "1 boxes reach beyond their image"),
    (lambda c: c["annotations"][0].update(id=0), 0, "an annotation has the id 0"),
    (lambda c: c["annotations"].clear(), 2, "there are no boxes"),
    (lambda c: c["images"].clear(), 2, "no images are listed"),
    (lambda c: c["categories"].clear(), 2, "no classes are listed"),
    (lambda c: c["categories"].append(c["categories"][0] | {"id": 9}), 2, "1 class names are listed more"),
    (lambda c: c["categories"].append({"id": 1, "name": "pink"}), 2, "1 class ids are listed more than once"),
    (lambda c: c["categories"].append({"id": "9x", "name": "pink"}), 2, "1 entries are invalid"),
    (lambda c: c["categories"].append({"id": 9, "name": "pink"}), 1, "1 classes have no box"),
    (
        lambda c: c["categories"].append({"id": 9, "name": "Red Square"}),
        1,
        "1 class names differ only in case",
    ),
]


@pytest.mark.parametrize(("change", "status", "what"), ANNOTATIONS)
def test_faults_of_annotations(data, change, status, what):
    spoil(data, "train", change)
    found_status, findings = diagnose(data)
    assert found_status == status
    assert any(w.startswith(what) and where == "train" for _, where, w, _ in findings), findings


def test_classes_that_training_lacks(data):
    spoil(data, "val", lambda c: c["categories"].append({"id": 9, "name": "pink"}))
    status, findings = diagnose(data)
    assert status == 2
    assert ("error", "val", "1 classes are not among those of training", ["pink"]) in findings


def test_faults_of_images_are_worse_where_no_image_is_left(data):
    lvis = data / "lvis_v1"
    for split, number in (("train", 1), ("val", 100)):
        (lvis / f"{split}2017" / f"{number:012d}.png").unlink()
        (lvis / f"{split}2017" / f"{number + 1:012d}.png").write_bytes(b"<html>")
        tiny.draw(lvis / f"{split}2017" / f"{number + 2:012d}.png", (80, 60), [])
    status, findings = diagnose(data)
    assert status == 2
    for severity, where, first in (("warning", "train", 1), ("error", "val", 100)):
        names = [f"{where}2017/{first + i:012d}.png" for i in range(3)]
        here = {what: examples for s, w, what, examples in findings if (s, w) == (severity, where)}
        assert here["1 images are missing"] == [names[0]]
        assert here["1 images are damaged"][0].startswith(f"{names[1]}: does not decode")
        assert here["1 images differ from their stated size"] == [f"{names[2]}: is 60x80, stated as 80x60"]


def test_images_in_two_parts_are_found_by_content(data):
    lvis = data / "lvis_v1"
    shutil.copy(lvis / "train2017/000000000003.png", lvis / "val2017/000000000101.png")
    shutil.copy(lvis / "val2017/000000000102.png", data / "imagenet-lvis/images/red_square/0.png")
    status, findings = diagnose(data)
    leaks = {where: examples for _, where, what, examples in findings if "are in both" in what}
    assert status == 2 and leaks == {
        "train, val": ["train2017/000000000003.png is val2017/000000000101.png"],
        "image-level, val": ["red_square/0.png is val2017/000000000102.png"],
    }


def test_folders_that_match_nothing(data):
    shutil.rmtree(data / "imagenet-lvis")
    for folder in ("blue squares", "zebra", "Green_Square"):
        tiny.draw(data / "imagenet-lvis" / folder / "1.png", (30, 30), [])
    (data / "imagenet-lvis" / "hollow").mkdir()
    status, findings = diagnose(data)
    assert status == 1
    assert (
        "warning",
        "image-level",
        "2 classes match no detection class",
        ["'blue squares' (nearest: 'blue_square'): 1 images", "'zebra': 1 images"],
    ) in findings
    assert any(
        "1 class folders hold no image, add some or remove them: 'hollow'" in what
        for _, _, what, _ in findings
    )


def test_a_stale_index_of_a_tar_and_a_cut_tar(data):
    images = data / "imagenet-lvis" / "images"
    for folder in sorted(images.iterdir()):
        with tarfile.open(images / f"{folder.name}.tar", "w") as file:
            file.add(folder, folder.name)
        shutil.rmtree(folder)
    assert diagnose(data)[0] == 0
    os.utime(images / "red_square.tar", ns=(1, 1))
    path = images / "green_square.tar"
    with tarfile.open(path) as file:
        cut = file.getmembers()[2].offset + 520
    path.write_bytes(path.read_bytes()[:cut])
    status, findings = diagnose(data)
    warnings = " ".join(
        text
        for severity, _, what, examples in findings
        if severity == "warning"
        for text in (what, *examples)
    )
    assert status == 1
    assert "red_square.tar.index: is older than red_square.tar" in warnings
    assert f"green_square.tar: ends at byte {cut}" in warnings and "images are missing" in warnings


def test_every_wrong_line_of_yolo_is_listed(tmp_path):
    data = write_yolo(tmp_path / "yolo")
    (data / "labels/train/002.txt").write_text("0 0.5 0.5 0.1\n7 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n")
    status, findings = diagnose(data)
    ((_, _, what, examples),) = [f for f in findings if "are invalid" in f[2]]
    assert status == 2 and what.startswith("2 entries")
    assert "002.txt line 1: 4 values" in examples[0] and "line 2: class 7" in examples[1]


def test_data_that_is_not_there_is_an_error_not_a_crash(tmp_path):
    (tmp_path / "DATA").mkdir()
    status, findings = diagnose(tmp_path / "DATA")
    assert status == 2 and "no annotation file" in findings[0][2]
    tiny.write_detection(tmp_path / "DATA", "train", 3)
    tiny.write_detection(tmp_path / "DATA", "val", 2, first_id=100)
    status, findings = diagnose(tmp_path / "DATA", "--imagenet_path", str(tmp_path / "nowhere"))
    assert status == 2 and any("no image-level data" in f[2] for f in findings if f[0] == "error")


def test_a_json_that_ends_early(data):
    path = data / "lvis_v1" / "annotations" / "lvis_v1_val.json"
    path.write_text(path.read_text()[:300])
    status, findings = diagnose(data)
    assert status == 2 and any("ends early" in f[2] and f[1] == "val" for f in findings)


def test_real_groceries(tmp_path):
    out = tmp_path / "found.json"
    data = require_fixture("data/groceries")
    assert main([str(data), "--plot", str(tmp_path / "tail.png"), "--json", str(out)]) == 1
    (finding,) = [f for f in json.loads(out.read_text()) if f["severity"] != "note"]
    assert "70 images are listed under several ids" in finding["what"]
    assert "list every image once" in finding["what"]


def test_a_plot_that_cannot_be_written_does_not_lose_the_findings(data):
    status, findings = diagnose(data, "--plot", str(data.parent / "new" / "folder" / "tail.png"))
    assert status == 0 and (data.parent / "new" / "folder" / "tail.png").is_file()
    (data.parent / "file").write_text("no folder")
    status, findings = diagnose(data, "--plot", str(data.parent / "file" / "tail.png"))
    assert status == 1 and any(
        w == "plot" and "tail.png: the plot cannot be written" in t for _, w, t, _ in findings
    )


def test_images_are_handed_to_the_threads_in_blocks(data, monkeypatch):
    waiting = []

    class Pool(images.ThreadPoolExecutor):
        def map(self, work, items):
            waiting.append([len(part) for part in items])
            return super().map(work, items)

    monkeypatch.setattr(images, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(images, "_BLOCK", 2)
    assert diagnose(data)[0] == 0
    assert waiting == [[2], [2], [1], [2], [1], [2], [2], [2]]
    waiting.clear()
    monkeypatch.setattr(images, "_AT_ONCE", 1)
    assert diagnose(data)[0] == 0
    assert waiting[0] == [1, 1]


def test_a_small_shared_memory(data, monkeypatch):
    monkeypatch.setattr(machine, "free_shared_memory", lambda: 1_000_000)
    status, findings = diagnose(data)
    assert status == 1 and "/dev/shm has 1 MB free" in str(findings)


def test_boxes_of_yolo_are_compared_with_their_images_and_named_by_line(tmp_path):
    data = write_yolo(tmp_path / "yolo")
    rows = "# a comment\n0 0.5 0.5 0.1 0.1\n\n1 0.9 0.5 0.4 0.2\n0 0.5 0.5 0.001 0.4\n"
    (data / "labels/train/002.txt").write_text(rows)
    _, findings = diagnose(data)
    beyond = next(examples for _, _, what, examples in findings if what == "1 boxes reach beyond their image")
    assert beyond == [
        f"{data}/labels/train/002.txt line 4 of images/train/002.png: green_square [56, 24, 32, 12] in 80x60"
    ]
    tiny_ones = next(examples for _, _, what, examples in findings if "less than 2 pixels" in what)
    assert tiny_ones[0].startswith(f"{data}/labels/train/002.txt line 5 of")
