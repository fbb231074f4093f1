import pytest
import torch
from torchvision.ops import box_iou

from models.richsem.examples import MIN_IOU, ExampleImage, fit_examples, separate
from models.richsem.vocabulary import Vocabulary, change_vocabulary
from tests.models.tiny import build, make_images, tiny_config
from util.boxes import box_cxcywh_to_xyxy


def test_the_fit_separates_examples_from_the_rest():
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(5, 8, generator=generator) + torch.tensor([3.0] + [0.0] * 7)
    negative = torch.randn(400, 8, generator=generator)
    weight, bias = separate(positive, negative)
    assert weight.argmax() == 0
    assert (positive @ weight + bias).mean() > 0 > (negative @ weight + bias).mean()
    # The examples' share of the loss does not depend on how much background there is.
    again, _ = separate(positive, negative.repeat(3, 1))
    torch.testing.assert_close(again, weight, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("one_class", [False, True])
def test_rows_score_what_fits_the_boxes_above_what_does_not(tmp_path, one_class):
    model = build(tiny_config(enc_cls_agn=one_class, num_queries=40), tmp_path).model.eval()
    images = make_images(((64, 96),))
    with torch.no_grad():
        before = model(images).final
    boxes = before.boxes_cxcywh[0, [3, 20]]
    example = ExampleImage(images, boxes, torch.tensor([0, 1]))
    calls = []

    def examples():
        calls.append(1)
        yield example

    rows = fit_examples(model, examples, 2, one_class_encoder=one_class)
    assert len(calls) == (1 if one_class else 2)
    words = Vocabulary(("a", "b"), (-1, -1), extends=False)
    with torch.no_grad():
        found = change_vocabulary(model, words, rows, one_class_encoder=one_class)(images).final
    ious = box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(found.boxes_cxcywh[0]))
    for column in range(2):
        score, iou = found.logits[0, :, column], ious[column]
        assert score[iou.argmax()] > score[iou < MIN_IOU].median()
