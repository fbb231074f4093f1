"""One split becomes two: shares, coverage of rare classes, what stays where it is."""

from dataclasses import replace

import numpy as np
import pytest

from datasets.annotations.categories import Category
from datasets.annotations.split_file import Split, SplitFile
from datasets.annotations.splitting import divide, split_table
from datasets.annotations.table import AnnotationTable, count_images
from datasets.images.reader import ImageFolder
from util.errors import UserError


def table_of(images: dict[str, str], classes: str | None = None) -> AnnotationTable:
    """Images by name, each with a box of every letter: its classes."""
    letters = sorted(set("".join(images.values()))) if classes is None else list(classes)
    boxes = [(i, letters.index(c)) for i, shown in enumerate(images.values()) for c in shown]
    return AnnotationTable.from_boxes(
        "train.json",
        [Category(k + 1, letter) for k, letter in enumerate(letters)],
        list(images),
        np.full((len(images), 2), 50),
        [[1.0, 2.0, 3.0, 4.0]] * len(boxes),
        [i for i, _ in boxes],
        [k for _, k in boxes],
    )


def names_of(table: AnnotationTable) -> set[str]:
    return {table.file_names[i] for i in range(len(table))}


def counts_of(table: AnnotationTable) -> np.ndarray:
    return count_images(table.category_index, table.image_index, len(table.categories))


def long_tail(images: int, classes: int, seed: int = 0) -> AnnotationTable:
    """Class k is in about images / (k + 1) images; a tenth of the images has no box."""
    rng = np.random.default_rng(seed)
    shown = rng.random((images, classes)) < 0.8 / (1 + np.arange(classes))
    shown[::10] = False
    image_index, category_index = np.nonzero(shown)
    return AnnotationTable.from_boxes(
        "train.json",
        [Category(k + 1, f"class {k}") for k in range(classes)],
        [f"{i:06d}.jpg" for i in range(images)],
        np.full((images, 2), 50),
        np.ones((len(image_index), 4)),
        image_index,
        category_index,
    )


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5, 0.75])
def test_every_class_has_its_share_to_the_image(share):
    table = long_tail(997, 60)
    train, val = split_table(table, share, 42)
    assert len(val) == round(share * 997) and len(train) + len(val) == 997
    assert not names_of(train) & names_of(val)
    total, held = counts_of(table), counts_of(val)
    assert np.abs(held - share * total).max() < 2
    several = total > 1
    assert (held[several] > 0).all() and (counts_of(train)[several] > 0).all()
    empty = int((np.diff(val.box_offsets) == 0).sum())
    assert abs(empty - share * (np.diff(table.box_offsets) == 0).sum()) < 2


def test_it_is_the_images_own_whatever_their_order_and_ids():
    table = long_tail(300, 20)
    first = Split.of(*split_table(table, 0.2, 42))
    order = np.random.default_rng(1).permutation(300)
    place = np.argsort(order)
    turned = AnnotationTable.from_boxes(
        "other.json",
        [Category(9 - c.id if c.id < 9 else c.id, c.name) for c in table.categories],
        [table.file_names[i] for i in order],
        table.sizes,
        table.boxes_xywh,
        place[table.image_index],
        table.category_index,
    )
    assert Split.of(*split_table(turned, 0.2, 42)) == first
    assert Split.of(*split_table(table, 0.2, 43)) != first


def test_the_parts_are_the_table_and_counts_are_those_of_training():
    table = table_of({f"{i}.jpg": "ab" if i % 2 else "a" for i in range(10)})
    said = tuple(
        replace(c, image_count=5000, frequency="f" if c.name == "a" else "") for c in table.categories
    )
    train, val = split_table(replace(table, categories=said), 0.4, 0)
    assert [c.image_count for c in train.categories] == counts_of(train).tolist() == [6, 3]
    assert train.categories == val.categories and [c.frequency for c in val.categories] == ["f", ""]
    assert sorted([*train.image_ids, *val.image_ids]) == table.image_ids.tolist()
    assert sorted([*train.annotation_ids, *val.annotation_ids]) == table.annotation_ids.tolist()


def test_a_class_with_one_image_is_for_training():
    images = {f"{i}.jpg": "a" for i in range(8)} | {f"rare{c}.jpg": c for c in "bcd"}
    for seed in range(20):
        train, val = split_table(table_of(images), 0.3, seed)
        assert counts_of(train).tolist()[1:] == [1, 1, 1] and len(val) == 3


def test_a_class_with_two_images_is_in_both_parts():
    images = {f"{i}.jpg": "a" for i in range(16)}
    images |= {"p.jpg": "b", "q.jpg": "b", "r.jpg": "cd", "s.jpg": "ca"}
    for seed in range(20):
        train, val = split_table(table_of(images), 0.2, seed)
        assert (counts_of(train) > 0).all() and (counts_of(val) > 0)[:3].all() and len(val) == 4


def test_images_are_swapped_for_a_class_that_rarer_ones_would_leave_out():
    # `a` is in three images, each of which a class of its own wants in training.
    images = {"1.jpg": "ab", "2.jpg": "ac", "3.jpg": "a", "4.jpg": "d", "5.jpg": "d", "6.jpg": ""}
    for seed in range(30):
        train, val = split_table(table_of(images), 1 / 3, seed)
        assert counts_of(val)[0] == 1 and counts_of(val)[3] == 1, names_of(val)
        assert (counts_of(train) > 0).all()


def test_every_image_has_every_class():
    table = table_of({f"{i}.jpg": "abcdef" for i in range(11)})
    train, val = split_table(table, 0.2, 3)
    assert (len(train), len(val)) == (9, 2)


def test_images_without_boxes_are_split_too():
    train, val = split_table(table_of({f"{i}.jpg": "" for i in range(10)}, classes="a"), 0.3, 1)
    assert (len(train), len(val)) == (7, 3)


def test_versions_and_listings_of_one_image_stay_together():
    images = {f"{i}_jpg.rf.{'abc'[v] * 8}.jpg": "ab"[i % 2] for i in range(20) for v in range(3)}
    table = table_of(images)
    train, val = split_table(table, 0.2, 5)
    assert len(val) == 12
    assert not {n.split(".rf.")[0] for n in names_of(train)} & {n.split(".rf.")[0] for n in names_of(val)}
    twice = table_of({f"{i}.jpg": "a" for i in range(10)})
    files = [twice.file_names[i // 2 * 2] for i in range(10)]
    twice = replace(twice, file_names=type(twice.file_names).pack(files))
    parts = split_table(twice, 0.4, 5)
    assert not names_of(parts[0]) & names_of(parts[1]) and len(parts[1]) == 4
    # The same name in other folders is another image.
    train, val = split_table(table_of({f"{i}/photo.jpg": "a" for i in range(10)}), 0.2, 5)
    assert len(val) == 2


@pytest.mark.parametrize("added", [1, 40, 300])
def test_new_images_move_no_earlier_one(added):
    everything = long_tail(400 + added, 20)
    before = np.arange(400 + added) < 400
    known = Split.of(*split_table(everything.select(before), 0.2, 42))
    train, val = split_table(everything, 0.2, 42, known)
    assert set(known.val) <= names_of(val) and set(known.train) <= names_of(train)
    assert len(val) == round(0.2 * (400 + added))
    held = counts_of(val)
    assert np.abs(held - 0.2 * counts_of(everything)).max() <= 2.5
    # What was written after that is the same at the next start.
    assert Split.of(*split_table(everything, 0.2, 42, Split.of(train, val))) == Split.of(train, val)


def test_images_that_are_gone_leave_the_others_where_they_are():
    everything = long_tail(200, 10)
    known = Split.of(*split_table(everything, 0.2, 42))
    fewer = everything.without(everything.image_ids[::3].tolist())
    train, val = split_table(fewer, 0.2, 42, known)
    assert names_of(val) == set(known.val) & names_of(fewer)
    assert names_of(train) == set(known.train) & names_of(fewer)


@pytest.mark.parametrize(
    ("count", "share", "message"),
    [
        (0, 0.2, "train.json: val_share=0.2 needs two images or more to split, and there is none"),
        (1, 0.2, "train.json: val_share=0.2 needs two images or more to split, and there is 1"),
        (8, 0.05, "train.json: val_share=0.05 of 8 images leaves none for validation: try val_share=0.13"),
        (3, 0.9, "train.json: val_share=0.9 of 3 images leaves none for training: try val_share=0.67"),
    ],
)
def test_a_part_without_images_is_an_error(count, share, message):
    with pytest.raises(UserError) as error:
        split_table(table_of({f"{i}.jpg": "a" for i in range(count)}, classes="a"), share, 42)
    assert str(error.value) == message
    if "try" in message:
        split_table(table_of({f"{i}.jpg": "a" for i in range(count)}), float(message.split("=")[-1]), 42)


def test_versions_of_a_single_image_cannot_be_split():
    with pytest.raises(UserError, match="leaves no image for validation: all are copies of one"):
        split_table(table_of({f"a_jpg.rf.{i}.jpg": "a" for i in range(5)}), 0.2, 42)


def test_what_changed_since_the_file_was_written_is_one_line(tmp_path, caplog):
    folder = ImageFolder(tmp_path)
    images = {f"{i}.jpg": "a" for i in range(20)}
    first = divide("set", table_of(images), folder, SplitFile(0.2, 3))
    split = first.split
    assert Split.of(first.train, first.val) == split
    with caplog.at_level("WARNING"):
        again = divide("set", table_of(images), folder, SplitFile(0.2, 3, {"set": split}))
        assert again.split == split and not caplog.records
        changed = {name: "a" for name in images if name != split.val[0]} | {"new1.jpg": "a", "new2.jpg": "a"}
        later = divide("set", table_of(changed), folder, SplitFile(0.2, 3, {"set": split})).split
    (line,) = caplog.messages
    assert "2 images were added, 1 of them for validation, and 1 are gone" in line
    assert set(split.val) < set(later.val), "an image that is gone for now comes back to where it was"


def test_copies_of_a_file_stay_together_unless_they_are_apart_already(tmp_path, caplog):
    caplog.set_level("INFO")
    names = [f"{i}{kind}.jpg" for i in range(10) for kind in ("", " (1)")]
    for name in names:
        (tmp_path / name).write_bytes(name.split(".")[0].split(" ")[0].encode() * 9)
    table, folder = table_of(dict.fromkeys(names, "a")), ImageFolder(tmp_path)
    for seed in range(5):
        split = divide("set", table, folder, SplitFile(0.3, seed)).split
        train, val = (
            {name.removesuffix(".jpg").removesuffix(" (1)") for name in part}
            for part in (split.train, split.val)
        )
        assert len(split.val) == 6 and train.isdisjoint(val)
    assert "train.json: 10 images are copies of others and stay with them" in caplog.text
    apart = Split(
        tuple(n for n in names if "(1)" in n), tuple(n for n in names if "(1)" not in n and n[0] != "9")
    )
    later = divide("set", table, folder, SplitFile(0.3, 0, {"set": apart})).split
    assert set(apart.train) <= set(later.train) and set(apart.val) <= set(later.val)
