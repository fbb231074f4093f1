"""What a teacher names right, from the command line to the table."""

import json

import pytest
import torch

from tests.datasets.tiny import write_all
from tests.models.tiny import clip_settings, tiny_clip
from tools.check_teacher import main
from util.errors import UserError


@pytest.fixture
def words(tmp_path):
    (tmp_path / "random.json").write_text(json.dumps(clip_settings()))
    torch.save(tiny_clip().state_dict(), tmp_path / "random.pt")
    data = write_all(tmp_path / "data")
    options = [f"clip_model={tmp_path / 'random.json'}", f"clip_pretrained={tmp_path / 'random.pt'}"]
    options += [f"text_cache_dir={tmp_path}", "data_aug_scales=[64]", "data_aug_max_size=96"]
    config = "config/RichSem/richsem_4scale.py"
    return ["-c", config, "--data_path", str(data), "--device", "cpu", "--options", *options, "num_classes=0"]


def test_boxes_are_counted_by_frequency_size_and_image_level_images(words, tmp_path, capsys):
    assert main([*words, "--json", str(tmp_path / "table.json")]) == 0
    found = json.loads((tmp_path / "table.json").read_text())
    rows = {(row["of"], row["group"]): row for row in found["rows"]}
    count = {group: row["count"] for (of, group), row in rows.items() if of == "boxes"}
    # 5 validation images: red on each, green on every second one, blue on the last; all below 32 x 32.
    assert count == {
        "all": 8, "rare": 1, "common": 2, "frequent": 5, "small": 8, "medium": 0, "large": 0,
        "with image-level images": 8, "without": 0,
    }  # fmt: skip
    assert rows["image-level images", "all"]["count"] == 7
    # Three classes: the right one is among the five nearest.
    assert rows["boxes", "all"]["top5"] == 1.0 and rows["boxes", "large"]["top1"] is None
    right = sum(rows["boxes", g]["top1"] * count[g] for g in ("rare", "common", "frequent"))
    assert rows["boxes", "all"]["top1"] * 8 == pytest.approx(right)
    assert "boxes, rare" in capsys.readouterr().out


def test_without_the_stream_only_boxes_are_measured(words, tmp_path):
    assert main([*words, "use_imagenet=False", "--json", str(tmp_path / "table.json")]) == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {row["of"] for row in rows} == {"boxes"} and len(rows) == 7


def test_fewer_than_no_images_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--images", "-1"])
    assert "argument --images: -1 is below 0" in capsys.readouterr().err


def test_data_without_boxes_is_named(words, tmp_path):
    path = tmp_path / "data/lvis_v1/annotations/lvis_v1_val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(UserError, match="has no boxes to measure on"):
        main(words)
