"""YOLO folders read by path alone: the same boxes as the LVIS file that they were made from."""

from dataclasses import replace

import numpy as np
import pytest

from config.schema import Config
from datasets.annotations.discovery import open_detection
from datasets.annotations.yolo_labels import LabelReader
from datasets.build import RunSettings, build_datasets
from tests.datasets import tiny
from util.errors import UserError

NAMES = [name for name, _, _ in tiny.CLASSES]
NUMBERS = {identity: i for i, (_, identity, _) in enumerate(tiny.CLASSES)}
CONFIG = Config(
    data_aug_scales=(48,),
    data_aug_max_size=64,
    data_aug_scales2_resize=(50,),
    data_aug_scales2_crop=(30, 40),
    rfs_repeat_sh=0.3,
    batch_size=2,
    use_imagenet=False,
)


def write_yolo(root, layout="images/{split}", names="names: " + str(NAMES)):
    """The splits of `tiny` as YOLO has them; the last image of each split has no label file."""
    for split, count in (("train", 6), ("val", 3)):
        content, drawn = tiny.detection_content(count, split)
        folder = root / layout.format(split=split)
        labels = root / layout.format(split=split).replace("images", "labels")
        labels.mkdir(parents=True)
        for image, boxes in zip(content["images"], drawn.values(), strict=True):
            tiny.draw(folder / f"{image['id']:03d}.png", (60, 80), boxes)
            lines = [
                f"{NUMBERS[c]} {(x + w / 2) / 80} {(y + h / 2) / 60} {w / 80} {h / 60}"
                for (x, y, w, h), c in boxes
            ]
            (labels / f"{image['id']:03d}.txt").write_text("\n".join(lines) + "\n")
        (labels / f"{count:03d}.txt").unlink()
    places = "\n".join(f"{split}: {layout.format(split=split)}" for split in ("train", "val"))
    (root / "data.yaml").write_text(f"{names}\n{places}\n")
    return root


def test_boxes_are_those_of_the_lvis_file(tmp_path):
    write_yolo(tmp_path)
    store, _ = open_detection(tmp_path, "train")
    content, _ = tiny.detection_content(6, "train")
    last = content["images"][-1]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != last]
    expected = tiny.table_of(content, "tiny")
    np.testing.assert_allclose(store.boxes_xywh, expected.boxes_xywh, atol=1e-9)
    np.testing.assert_allclose(store.areas, expected.areas, atol=1e-9)
    for column in ("sizes", "box_offsets", "category_index", "image_ids"):
        assert np.array_equal(getattr(store, column), getattr(expected, column)), column
    assert [c.name for c in store.categories] == NAMES
    assert [c.image_count for c in store.categories] == [5, 2, 0]
    assert not store.federated and store.file_names[0] == "images/train/001.png"


@pytest.mark.parametrize("layout", ["images/{split}", "{split}/images"])
@pytest.mark.parametrize("with_yaml", [True, False])
def test_a_path_is_enough_to_train_and_evaluate(tmp_path, layout, with_yaml):
    write_yolo(tmp_path, layout)
    if not with_yaml:
        (tmp_path / "data.yaml").unlink()
        (tmp_path / "classes.txt").write_text("\n".join(NAMES) + "\n")
    parts = build_datasets(CONFIG, RunSettings(str(tmp_path)))
    assert parts.classes.names == tuple(NAMES) and len(parts.val_loader) == 3
    shown = [t for _, targets in parts.train_loader for t in targets]
    assert shown and all(0 <= label < 3 for t in shown for label in t.labels.tolist())


def test_what_exporters_write(tmp_path, caplog):
    """Roboflow's `valid`, its paths that start one folder too high; numbered names; a list of files."""
    write_yolo(tmp_path, "{split}/images", "names:\n" + "".join(f"  {i}: {n}\n" for i, n in enumerate(NAMES)))
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("train: ", "train: ../").replace("val: ", "valid: ../"))
    assert len(open_detection(tmp_path / "data.yaml", "val")[0]) == 3
    (tmp_path / "some.txt").write_text(
        "./train/images/002.png\n./train/images/001.png\ntrain/images/002.png\n"
    )
    (tmp_path / "data.yaml").write_text(f"names: {NAMES}\nnc: 3\ntrain: some.txt\nval: val/images\n")
    store, _ = open_detection(tmp_path, "train")
    assert [store.file_names[i] for i in range(len(store))] == [
        "train/images/001.png",
        "train/images/002.png",
    ]
    assert np.diff(store.box_offsets).tolist() == [1, 2]
    assert "1 images of train are listed more than once" in caplog.text


def test_an_outline_becomes_the_box_around_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1 0.1 0.2 0.5 0.2 0.5 0.8 0.3 0.9\n\n0 0.5 0.5 0.2 0.1\n")
    rows, faults = LabelReader(NAMES).read(path)
    assert not faults
    np.testing.assert_allclose(rows, [(1, 0.3, 0.55, 0.4, 0.7), (0, 0.5, 0.5, 0.2, 0.1)])


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (17, 3)])
def test_keypoints_behind_a_box_are_no_outline(tmp_path, shape):
    write_yolo(tmp_path)
    expected = open_detection(tmp_path, "train")[0].boxes_xywh
    for path in (tmp_path / "labels").rglob("*.txt"):
        points = " 0.1" * (shape[0] * shape[1])
        path.write_text("".join(f"{line}{points}\n" for line in path.read_text().splitlines() if line))
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(f"{text}kpt_shape: {list(shape)}\n")
    np.testing.assert_array_equal(open_detection(tmp_path, "train")[0].boxes_xywh, expected)
    path.write_text("0 0.5 0.5 0.1 0.1 0.1\n")
    with pytest.raises(UserError, match=rf"6 values, not {5 + shape[0] * shape[1]} .*kpt_shape"):
        open_detection(tmp_path, path.parent.name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"4 values, not 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"6 values, a box and a confidence"),
        ("3 0.5 0.5 0.1 0.1", r"class 3, but there are 3 classes \(0\.\.2\)"),
        ("-1 0.5 0.5 0.1 0.1", r"class -1"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0\.5"),
        ("inf 0.5 0.5 0.1 0.1", r"class inf"),
        ("nan 0.5 0.5 0.1 0.1", r"class nan"),
        ("red 0.5 0.5 0.1 0.1", r"class 'red' is not a number"),
        ("0 40 30 12 nan", r"are they pixels\?"),
        ("0 0.5 0.5 inf 0.1", r"are not fractions"),
    ],
)
def test_a_wrong_line_is_named_with_its_file_and_number(tmp_path, line, message):
    write_yolo(tmp_path)
    path = tmp_path / "labels/train/002.txt"
    path.write_text(f"{path.read_text()}{line}\n{line}\n")
    with pytest.raises(
        UserError, match=rf"labels/train/002\.txt line 3: .*{message}.*2 such lines"
    ) as caught:
        open_detection(tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: images/train", r"no class names; write them into data\.yaml"),
        ("names: []\ntrain: images/train", "`names` is empty"),
        (f"names: {NAMES}\nnc: 4\ntrain: images/train", "nc is '4', but `names` has 3"),
        (
            "names: [a, null]\ntrain: images/train",
            "name of class 1 in `names` is null; if it is called so, write 'null'",
        ),
        ("names: red\ntrain: images/train", r"`names` is 'red', neither a list .* write a list, `names: \["),
        ("names: red, blue\ntrain: x", r"`names` is 'red, blue', neither"),
        ("names: absent.txt\ntrain: x", r"`names` is 'absent\.txt', neither a list .* nor a file in "),
        ("names: [a, [b]]\ntrain: x", r"name of class 1 in `names`, \['b'\], is no line of text"),
        ("names: [a, ' ']\ntrain: x", "name of class 1 in `names`, ' ', is no line of text"),
        ("names: [a]\nnames: [b]\ntrain: x", "not valid YAML .*'names' occurs twice"),
        ("names: {0: a, 0: b}\ntrain: x", "not valid YAML .*'0' occurs twice"),
        ("names: {1: a, 2: b}\ntrain: x", r"numbers of `names` are not 0\.\.1, each once: '2'"),
        ("names: [a]\nnc: two\ntrain: x", "nc is 'two', but `names` has 1 classes"),
        (
            "names: [a]\ntrain: {images: x}",
            r"its `train` is \{'images': 'x'\}, not a path or a list of paths",
        ),
        ("names: [a]\ntrain: [x, null]", r"its `train` is \['x', None\], not a path or a list"),
        ("names: [a]\npath: [x]\ntrain: x", r"its `path` is \['x'\], not a path"),
        ("names: [a]\nkpt_shape: [17, x]\ntrain: images/train", r"kpt_shape \['17', 'x'\] is not"),
        ("names: {0: a, 2: b}\ntrain: images/train", r"numbers of `names` are not 0\.\.1"),
        (f"names: {NAMES}\ntrain: photos/train", r"its 'photos/train' does not exist; looked for"),
        (f"names: {NAMES}\ntrain: labels/train", "no images for train in labels/train"),
        ("names: [a, b\ntrain: x", "is not valid YAML"),
        (f"names: {NAMES}\nkpt_shape: 17\ntrain: images/train", "kpt_shape '17' is not"),
    ],
)
def test_what_is_wrong_with_the_yaml_is_named(tmp_path, yaml, message):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(UserError, match=message) as caught:
        open_detection(tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ("names: [yes, No, on]\nnc: 3", ("yes", "No", "on")),
        ("names: [1, 2.50, 2024-01-01]\nnc: '3'", ("1", "2.50", "2024-01-01")),
        ("names: {'1': b, 0: a, 2: 0o7}", ("a", "b", "0o7")),
        ("names: {2: ' c ', 1: b, 0: true}\nnc: null", ("true", "b", "c")),
        ("names:\n- a\n- 'null'\n- \u8f66\nunknown: {x: [1, 2]}", ("a", "null", "\u8f66")),
        ("names: names.txt", ("x", "y y", "\u8f66")),
        ("names: null", ("k", "l", "m")),
        ("nc: 3", ("k", "l", "m")),
    ],
)
def test_every_form_of_names_is_read_as_it_is_written(tmp_path, names, read):
    write_yolo(tmp_path, names=names)
    (tmp_path / "names.txt").write_bytes("\ufeffx\r\ny y \r\n\u8f66\r\n".encode())
    (tmp_path / "classes.txt").write_text("k\nl\nm\n\n")
    assert tuple(c.name for c in open_detection(tmp_path, "train")[0].categories) == read


def test_a_class_list_of_another_encoding_or_with_a_gap_is_named_with_its_line(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    for content, message in [
        ("red\n\u7ea2\n".encode("gbk"), r"classes\.txt: line 2: byte 5 of the file, 0xba, is not UTF-8"),
        (b"red\n\nblue\n", r"classes\.txt: line 2 is empty; it stands for class 1"),
        (b"\n", r"classes\.txt: is empty"),
    ]:
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_detection(tmp_path, "train")


@pytest.mark.parametrize(
    "paths",
    [
        "path: /content/drive/set\ntrain: images/train",
        "train: /content/drive/set/images/train",
        "train: 'C:\\work\\set\\images\\train'",
        "path: null\ntrain: [images/train]",
        "path: ''\nval: images/val\ntrain: ~/set/images/train",
        "path: ~/set\ntrain: images/train",
    ],
)
def test_paths_of_another_machine_and_of_home_are_found(tmp_path, paths, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = write_yolo(tmp_path / "set")
    (root / "data.yaml").write_text(f"names: {NAMES}\n{paths}\n")
    store, images = open_detection(root, "train")
    assert len(store) == 6 and images.find(store.file_names[0])


def test_without_names_or_splits_it_says_what_to_write(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(UserError, match=r"no class names; write them into data\.yaml .* or classes\.txt"):
        open_detection(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "images" / "val").rename(tmp_path / "images" / "unseen")
    with pytest.raises(
        UserError,
        match=r"for val; .*images in images/train \(6\), images/unseen \(3\); .*looked for YOLO",
    ):
        open_detection(tmp_path, "val")


def test_class_names_that_differ_only_in_spelling_are_warned_of(tmp_path, caplog):
    write_yolo(tmp_path, names="names: [red_square, Red Square, blue_square]")
    build_datasets(CONFIG, RunSettings(str(tmp_path)))
    assert "'red_square' and 'Red Square' differ only in case" in caplog.text
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("Red Square", "red_square"))
    with pytest.raises(UserError, match="class name 'red_square' occurs 2 times"):
        build_datasets(CONFIG, RunSettings(str(tmp_path)))


def test_damaged_images_have_no_boxes_and_are_met_again(tmp_path, caplog):
    write_yolo(tmp_path)
    for name in ("train/003", "val/002"):
        (tmp_path / f"images/{name}.png").write_bytes(b"no image")
    store, _ = open_detection(tmp_path, "train")
    assert len(store) == 6 and store.size(2) == (0, 0) and len(store.boxes_xywh[store.rows(2)]) == 0
    assert "1 images are damaged, first: images/train/003.png: does not decode" in caplog.text
    parts = build_datasets(CONFIG, RunSettings(str(tmp_path)))
    assert sum(len(images) for images, _ in parts.val_loader) == 2
    assert parts.damaged_val_ids() == [2], "the metrics say that they leave it out"


def test_both_streams_from_plain_folders(tmp_path):
    write_yolo(tmp_path / "yolo")
    tiny.draw(tmp_path / "TREE" / "Blue Square" / "a.png", (40, 50), [])
    config = replace(CONFIG, use_imagenet=True, mosaic_size=64, imagenet_path=str(tmp_path / "TREE"))
    parts = build_datasets(config, RunSettings(str(tmp_path / "yolo")))
    assert parts.train_loader.dataset.datasets[1].labels.tolist() == [2]


LAUGHS = "\n".join(
    ["a0: &a0 [ha, ha]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (LAUGHS + "\nnames: [*a11]", r"data\.yaml: is not valid YAML \(aliases"),
        ("names: " + "[" * 20_000, "is nested too deeply"),
        ("names: 5", "`names` is '5', neither a list of class names nor"),
        ("names: {0: a, b: c}", "the numbers of `names` are not 0"),
        ("names: {false: a, true: b, x: c}", "the numbers of `names` are not 0"),
        ('names: ["\\ud800", b, c]', "is no line of text"),
        ("names: [!!int '', b, c]", "name of class 0 in `names`, '', is no line of text"),
        (f"names: [{'[' * 90 + ']' * 90}, b, c]", "is no line of text"),
        (f"names: {NAMES}\nnc: {list(range(1000))}", "nc is "),
        (f"names: {NAMES}\nkpt_shape: {list(range(1000))}", "is not .points, values per point."),
        (f"names: {NAMES}\npath: {'x' * 5000}\ntrain: {'y' * 5000}\nval: z", "does not exist"),
    ],
)
def test_hostile_yaml_is_one_short_line(tmp_path, names, message):
    write_yolo(tmp_path, names=names)
    if message == "does not exist":
        (tmp_path / "data.yaml").write_text(names)
    with pytest.raises(UserError, match=message) as caught:
        open_detection(tmp_path, "train")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_a_yaml_file_of_something_else_does_not_matter(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "compose.yaml").write_text("a: &a [1]\nb: *a\nnames: [x]\n")
    (tmp_path / "broken.yaml").write_text("{")
    assert len(open_detection(tmp_path, "train")[0]) == 6


@pytest.mark.parametrize("line", [b"0 \xff", b"9" * 5000 + b" 0 0 0 0", b"x" * 5000 + b" 1 1 1 1", b"\0"])
def test_hostile_labels_are_one_short_line(tmp_path, line):
    (tmp_path / "a.txt").write_bytes(line)
    rows, faults = LabelReader(NAMES).read(tmp_path / "a.txt")
    assert not rows and len(faults) == 1 and len(faults[0]) < 400
    assert LabelReader(NAMES).read(tmp_path / ("n" * 5000))[0] == []
