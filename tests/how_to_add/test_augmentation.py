"""An augmentation: the printed example trains on other pixels and the same boxes, whatever the workers."""

from dataclasses import replace

import pytest
import torch

from tests.datasets import tiny
from tests.datasets.test_build import build
from tests.how_to_add.example import run_example
from util.errors import UserError

SMALL = {
    "data_aug_scales": [48, 60],
    "data_aug_max_size": 100,
    "data_aug_scales2_resize": [50, 60],
    "data_aug_scales2_crop": [30, 50],
    "mosaic_size": 64,
    "num_classes": 0,
    "dn_labelbook_size": 0,
}


def test_the_example_changes_pixels_alone(tmp_path):
    data = tiny.write_all(tmp_path)
    config = run_example("An augmentation", options=SMALL)["config"]
    plain, changed, helped = (
        list(build(data, c, num_workers=workers).train_loader)
        for c, workers in ((replace(config, photometric=()), 0), (config, 0), (config, 2))
    )
    assert len(plain) == len(changed) == len(helped) > 4
    for (before, boxes), (after, same_boxes), (again, _) in zip(plain, changed, helped, strict=True):
        assert torch.equal(boxes.boxes_cxcywh, same_boxes.boxes_cxcywh) and before.sizes == after.sizes
        assert not torch.equal(before.tensor, after.tensor)
        assert torch.equal(after.tensor, again.tensor)
    with pytest.raises(UserError, match="Did you mean 'GaussianBlur'"):
        build(data, replace(config, photometric=("GaussianBlurr(5)",)))
