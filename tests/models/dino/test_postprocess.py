import pytest
import torch

from models.dino.output import DetectorOutput, LayerOutput, LayerStack
from models.dino.postprocess import PostProcess


def output(logits, boxes) -> DetectorOutput:
    last = LayerOutput(torch.as_tensor(logits), torch.as_tensor(boxes))
    logits = torch.stack((torch.full_like(last.logits, 9.0), last.logits))
    return DetectorOutput(LayerStack(logits, torch.stack((last.boxes_cxcywh,) * 2)), last)


def random_output(batch: int = 2, queries: int = 5, classes: int = 4) -> DetectorOutput:
    torch.manual_seed(0)
    return output(torch.randn(batch, queries, classes).double(), torch.rand(batch, queries, 4).double())


def test_the_best_pairs_of_query_and_class_in_order():
    """One query may be reported under several classes."""
    logits = [[[2.0, 1.0, -3.0], [-2.0, 1.5, -1.0]]]
    boxes = [[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]]]
    (found,) = PostProcess(3)(output(logits, boxes), [(100, 200)])
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, 1.5, 1.0]).sigmoid().tolist())
    expected = [[80, 30, 120, 70], [0, 0, 100, 100], [80, 30, 120, 70]]
    for ours, wanted in zip(found.boxes_xyxy.tolist(), expected, strict=True):
        assert ours == pytest.approx(wanted, abs=1e-4)


def test_against_a_slow_loop():
    said = random_output()
    found = PostProcess(7)(said, [(50, 40), (30, 60)])
    for i, (height, width) in enumerate([(50, 40), (30, 60)]):
        pairs = [(float(said.final.logits[i, q, c].sigmoid()), q, c) for q in range(5) for c in range(4)]
        pairs.sort(reverse=True)
        assert found[i].labels.tolist() == [c for _, _, c in pairs[:7]]
        for k, (score, q, _) in enumerate(pairs[:7]):
            cx, cy, w, h = said.final.boxes_cxcywh[i, q].tolist()
            xyxy = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
            assert found[i].scores[k].item() == pytest.approx(score)
            assert found[i].boxes_xyxy[k].tolist() == pytest.approx(xyxy)


def test_boxes_are_not_clamped_to_the_image():
    (found,) = PostProcess(1)(output([[[1.0]]], [[[0.0, 1.0, 0.5, 0.5]]]), [(10, 10)])
    assert found.boxes_xyxy[0].tolist() == pytest.approx([-2.5, 7.5, 2.5, 12.5])


@pytest.mark.parametrize("unused", [(0,), (1, 3)])
def test_columns_that_are_no_class_are_never_reported(unused):
    said = random_output()
    with torch.no_grad():
        said.final.logits[..., list(unused)] = 50.0
    for found in PostProcess(1000, unused)(said, [(9, 9)] * 2):
        assert len(found) == 5 * (4 - len(unused))
        assert not set(found.labels.tolist()) & set(unused)
        assert (found.scores >= 0).all()
    assert (said.final.logits[..., list(unused)] == 50).all()


def test_unused_columns_lose_even_to_scores_of_zero():
    (found,) = PostProcess(4, (0,))(output(torch.full((1, 4, 2), -1e4), torch.rand(1, 4, 4)), [(9, 9)])
    assert found.labels.tolist() == [1] * 4 and found.scores.tolist() == [0] * 4


def test_no_more_than_there_are():
    assert [len(found) for found in PostProcess(300)(random_output(), [(9, 9)] * 2)] == [20, 20]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_leave_in_single_precision_at_least(dtype):
    logits, boxes = torch.randn(1, 3, 4).to(dtype), torch.rand(1, 3, 4).to(dtype)
    (found,) = PostProcess(5)(output(logits, boxes), [(9, 9)])
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.scores.dtype == found.boxes_xyxy.dtype == wanted
    assert found.labels.dtype == torch.int64
