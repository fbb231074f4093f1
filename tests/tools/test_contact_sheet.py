import json

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.json_reader import read_annotations
from datasets.evaluation.predictions import ROW
from tools.contact_sheet import choose_images, main
from util.errors import UserError


def tiny_set(folder, images: int = 5) -> dict:
    """Annotations and images in LVIS's places; every second image shows the rare class."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    content = {
        "images": [
            {"id": i, "width": 64, "height": 48, "coco_url": f"http://x/val2017/{i:012d}.jpg"}
            for i in range(1, images + 1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [8.0, 20.0, 20.0, 16.0], "area": 320.0}
            for i in range(1, images + 1)
        ],
        "categories": [
            {"id": 1, "name": "cup", "frequency": "f"},
            {"id": 2, "name": "urn", "frequency": "r"},
        ],
    }
    for image in content["images"]:
        Image.new("RGB", (64, 48), (image["id"] * 20, 80, 80)).save(
            folder / "val2017" / f"{image['id']:012d}.jpg"
        )
    (folder / "annotations/val.json").write_text(json.dumps(content))
    return content


def run(folder, predictions, **options) -> Image.Image:
    output = folder / "out" / "sheet.png"
    arguments = ["--annotations", str(folder / "annotations/val.json"), "--predictions", str(predictions)]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    main([*arguments, "--output", str(output)])
    return Image.open(output)


def results(folder, score: float):
    path = folder / f"results_{score}.json"
    found = {"image_id": 1, "category_id": 2, "bbox": [8.0, 20.0, 20.0, 16.0], "score": score}
    path.write_text(json.dumps([found]))
    return path


def test_truth_left_and_detections_right(tmp_path):
    tiny_set(tmp_path, images=1)
    high = np.asarray(run(tmp_path, results(tmp_path, 0.9), side=96))
    low = np.asarray(run(tmp_path, results(tmp_path, 0.1), side=96))
    # 128 x 96 each, a margin of 10 on the left: the detection changes the right half alone.
    difference = (high != low).any(axis=(0, 2))
    assert difference[10 + 128 + 2 :].any()
    assert not difference[: 10 + 128].any()


def test_a_runs_own_prediction_file_draws_the_same(tmp_path):
    tiny_set(tmp_path, images=1)
    rows = np.zeros(1, dtype=ROW)
    rows[0] = (1, 2, 0.75, (8, 20, 28, 36))
    np.save(tmp_path / "predictions.npy", rows)
    a = np.asarray(run(tmp_path, tmp_path / "predictions.npy"))
    b = np.asarray(run(tmp_path, results(tmp_path, 0.75)))
    assert (a == b).all()


def test_half_of_the_chosen_images_show_a_rare_class(tmp_path):
    tiny_set(tmp_path, images=20)
    annotations = read_annotations(tmp_path / "annotations/val.json")
    chosen = choose_images(annotations, 6)
    assert len(chosen) == 6 and sorted(set(chosen)) == chosen
    assert (annotations.image_ids[chosen] % 2).sum() >= 3
    assert len(choose_images(annotations, 100)) == 20


def test_a_missing_image_is_named(tmp_path):
    tiny_set(tmp_path, images=1)
    (tmp_path / "val2017/000000000001.jpg").unlink()
    with pytest.raises(UserError, match=r"000000000001\.jpg"):
        run(tmp_path, results(tmp_path, 0.9))
