"""What Pascal VOC's XML files say, and what is wrong with them."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.discovery import find_detection, find_split, open_detection
from datasets.annotations.voc_xml import read_voc
from tests.layouts import voc
from tests.layouts.drawn import as_drawn, as_read
from tools.doctor import main
from util.errors import UserError

STEM = "frame_000002"


def change(root, old, new, stem=STEM):
    path = root / "Annotations" / f"{stem}.xml"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("source", "left"),
    [
        (voc.DEVKIT, 0),
        ("", 0),
        ("<source><database>The VOC2012 Database</database></source>", 0),
        (voc.UNKNOWN, 1),
        ("<source><database/></source>", 1),
    ],
)
def test_only_vocs_own_files_count_pixels_from_one(tmp_path, source, left):
    path = tmp_path / "a.xml"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30.5</ymax></bndbox>"
    path.write_text(f"<annotation>{source}<object><name>cup</name>{box}</object></annotation>")
    (thing,) = read_voc(path).objects
    assert thing.box_xywh == (left, left, 40 - left, 30.5 - left)
    assert read_voc(path).size == (0, 0) and not thing.difficult


def test_difficult_objects_are_ignored_in_evaluation(tmp_path):
    voc.devkit(tmp_path, difficult="1")
    table = find_detection(tmp_path, "val").read()
    first = table.box_offsets[:-1][np.diff(table.box_offsets) > 0]
    assert table.ignore.tolist() == [row in first for row in range(len(table.ignore))]
    assert not table.crowd.any() and [c.name for c in table.categories] == ["Urn", "blue kite", "cup"]


def test_parts_of_an_object_are_no_objects(tmp_path):
    voc.devkit(tmp_path)
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>"
    change(tmp_path, "</bndbox>", f"</bndbox><part><name>handle</name>{box}</part>")
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn("train")


def test_an_image_is_found_by_the_files_name_first_then_by_the_stated_one(tmp_path):
    voc.devkit(tmp_path)
    change(tmp_path, f"<filename>{STEM}.png", "<filename>frame_000001.jpg")
    (tmp_path / "Annotations" / "frame_000003.xml").rename(tmp_path / "Annotations" / "renamed.xml")
    change(tmp_path, "<filename>frame_000003.png", r"<filename>C:\shop\frame_000003.jpg", "renamed")
    listed = tmp_path / "ImageSets" / "Main" / "train.txt"
    listed.write_text(listed.read_text().replace("frame_000003", '"renamed"') + "\nframe_000000  1\n")
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn("train")


def test_images_in_an_archive(tmp_path):
    voc.devkit(tmp_path)
    with tarfile.open(tmp_path / "JPEGImages.tar", "w") as archive:
        for path in sorted((tmp_path / "JPEGImages").iterdir()):
            archive.add(path, path.name)
            path.unlink()
    (tmp_path / "JPEGImages").rmdir()
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn("train")


def test_an_image_without_a_file_is_left_out_and_named(tmp_path, caplog):
    voc.labelimg(tmp_path)
    Image.new("RGB", (30, 20)).save(tmp_path / "not_yet.png")
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn(None)
    assert "1 images have no XML file and are left out, first: not_yet.png" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>", "<nom>", rf"{STEM}\.xml line \d+: is not valid XML \(mismatched tag\)"),
        ("</annotation>", "", "is not valid XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation>', "has a DOCTYPE, which is not read"),
        ("<xmin>", "<xmin>x", rf"{STEM}\.xml line 11: the `xmin` of the object '.*' is 'x\d+', not a number"),
        ("<ymax>", "<ymax>nan", "the `ymax` .* not a number"),
        ("<xmin>", "<xmin>1_", "the `xmin` .* not a number"),
        ("<xmax>", "<xmax/><xmax>", "the `xmax` of the object '.*' is '', not a number|is None"),
        ("<name>", "<name/><name>", r"line 11: an object without a `name`"),
        ("<difficult>0", "<difficult>2", "the `difficult` of the object '.*' is '2', not 0 or 1"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, old, new, message):
    voc.devkit(tmp_path)
    change(tmp_path, old, new)
    with pytest.raises(UserError, match=message) as caught:
        open_detection(tmp_path, "train")
    assert "\n" not in str(caught.value) and STEM in str(caught.value)


def test_rotated_boxes_and_listed_images_without_anything_are_faults(tmp_path):
    voc.devkit(tmp_path)
    path = change(tmp_path, "<bndbox>", "<robndbox>")
    path.write_text(path.read_text().replace("</bndbox>", "</robndbox>", 1))
    (tmp_path / "ImageSets" / "Main" / "train.txt").open("a").write("frame_9\n")
    faults = find_detection(tmp_path, "train").check().faults
    assert "has no `bndbox` (it has a rotated one, `robndbox`)" in faults[0]
    assert "train.txt line 5: there is no image 'frame_9'" in faults[1] and len(faults) == 2


def test_the_doctor_names_file_and_line_of_a_box(tmp_path):
    voc.devkit(tmp_path)
    path = change(tmp_path, "<xmax>", "<xmax>9")
    found = tmp_path / "found.json"
    main([str(tmp_path), "--json", str(found), "--plot", str(tmp_path / "tail.png")])
    (finding,) = [f for f in json.loads(found.read_text()) if "reach beyond" in f["what"]]
    assert finding["examples"][0].startswith(f"{path} line 11")


def test_other_xml_files_are_not_vocs(tmp_path):
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert find_split(tmp_path, "train") is None
    with pytest.raises(UserError, match=r"there is annotations\.xml"):
        find_detection(tmp_path, "train")
