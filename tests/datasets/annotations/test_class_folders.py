"""A folder per class as the image-level stream: scanned, named, matched."""

import shutil
import tarfile
from dataclasses import replace

import pytest

from config.schema import Config
from datasets.annotations.class_folders import read_class_folders
from datasets.build import RunSettings, build_datasets
from datasets.sample import SampleIndex
from tests.datasets import tiny
from util.errors import UserError

CONFIG = Config(
    data_aug_scales=(48,),
    data_aug_max_size=64,
    data_aug_scales2_resize=(50,),
    data_aug_scales2_crop=(30, 40),
    mosaic_size=64,
    rfs_repeat_sh=0.3,
    batch_size=2,
)


def tree(root, **images):
    """Makes root/FOLDER/NAME for each of `images`: FOLDER -> names."""
    for folder, names in images.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            tiny.draw(root / folder / name, (40, 50), [([12.0, 10.0, 20.0, 20.0], 1)])
    return root


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    tiny.write_detection(root, "train", 9)
    tiny.write_detection(root, "val", 3, first_id=100)
    return root / "lvis_v1"


def build(detection, folder):
    return build_datasets(replace(CONFIG, imagenet_path=str(folder)), RunSettings(str(detection)))


def test_two_paths_make_both_streams(detection, tmp_path):
    folders = {"Red Square": ["a.png", "deep/b.png"], "green_square": ["c.png"], "n99999999": []}
    parts = build(detection, tree(tmp_path / "TREE", **folders))
    found = parts.train_loader.dataset.datasets[1]
    assert found.labels.tolist() == [0, 0, 1]
    names = [found.annotations.file_names[i] for i in found.used]
    assert names == ["Red Square/a.png", "Red Square/deep/b.png", "green_square/c.png"]
    batches = list(parts.train_loader)
    assert {t.image_level for _, targets in batches for t in targets} == {True, False}


@pytest.mark.parametrize("one", [False, True])
def test_tars_stand_in_for_folders(detection, tmp_path, one):
    source = tree(tmp_path / "images", **{"Red Square": ["a.png", "deep/b.png"], "green_square": ["c.png"]})
    home = tmp_path / "TARS"
    home.mkdir()
    for path in [source] if one else sorted(source.iterdir()):
        with tarfile.open(home / f"{path.name}.tar", "w") as file:
            file.add(path, path.name)
    found = build(detection, home).train_loader.dataset.datasets[1]
    assert found.labels.tolist() == [0, 0, 1] and found[SampleIndex(1)][1].labels[0] == 0
    assert not found.damaged_names()


def test_a_synset_names_a_class(detection, tmp_path):
    found = build(
        detection, tree(tmp_path / "TREE", **{"blue_square.n.01": ["d.PNG"]})
    ).train_loader.dataset.datasets[1]
    assert found.labels.tolist() == [2]


def test_wordnet_ids_stand_for_their_lvis_class(tmp_path):
    store = read_class_folders(tree(tmp_path / "T", n07753592=["a.png"], n07716358_zucchini=["b.png"]))
    assert [c.synset for c in store.categories] == ["zucchini.n.02", "banana.n.02"]
    assert "courgette" in store.categories[0].synonyms
    assert store.positives.values.tolist() == [0, 1] and store.image_ids.tolist() == [1, 2]


def test_what_matches_nothing_is_listed_once_with_the_nearest_class(detection, tmp_path, caplog):
    folders = {"red_squares": ["a.png", "b.png"], "zebra": ["c.png"], "green_square": ["d.png"]}
    found = build(detection, tree(tmp_path / "TREE", **folders)).train_loader.dataset.datasets[1]
    assert found.labels.tolist() == [1]
    assert "3 images of 2 classes match no detection class" in caplog.text
    assert "'red_squares' (nearest: 'red_square'); 'zebra'" in caplog.text
    assert caplog.text.count("zebra") == 1


def test_an_ambiguous_folder_is_named_with_what_it_may_mean(tmp_path, caplog):
    root = tiny.write_detection(tmp_path, "train", 9).parents[1]
    tiny.write_detection(tmp_path, "val", 3, first_id=100)
    for split in ("train", "val"):
        path = root / "annotations" / f"lvis_v1_{split}.json"
        path.write_text(path.read_text().replace('"green_square"', '"Red_Square"'))
    found = build(root, tree(tmp_path / "TREE", **{"red square": ["a.png"], "red_square": ["b.png"]}))
    assert found.train_loader.dataset.datasets[1].labels.tolist() == [0]
    assert "'red square' (may mean 'red_square' or 'Red_Square')" in caplog.text
    assert "class names 'red_square' and 'Red_Square' differ only in case" in caplog.text


def test_folders_without_images_and_loose_images_are_named(tmp_path, caplog):
    root = tree(tmp_path / "TREE", red_square=["a.png"], hollow=[], notes=[])
    (root / "notes" / "readme.txt").write_text("no image")
    (root / "red_square" / "._a.png").write_bytes(b"what macOS leaves")
    (root / "__MACOSX").mkdir()
    shutil.copy(root / "red_square" / "a.png", root / "loose.png")
    assert len(read_class_folders(root)) == 1
    assert "2 class folders hold no image, add some or remove them: 'hollow', 'notes'" in caplog.text
    assert (
        "1 images are outside the class folders and are skipped: move them; first: loose.png" in caplog.text
    )


def test_trees_without_images_or_classes_are_one_line(detection, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no image-level data: looked for .*a folder per class"):
        build(detection, tmp_path / "empty")
    with pytest.raises(UserError, match="no images in its 1 folders"):
        build(detection, tree(tmp_path / "hollow", red_square=[]))
    with pytest.raises(UserError, match="none of its 1 images has a class of the model"):
        build(detection, tree(tmp_path / "foreign", zebra=["a.png"]))
