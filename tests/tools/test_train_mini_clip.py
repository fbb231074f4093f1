"""The small teacher: what it learns from, that it learns, and that the detector's loader reads it back."""

import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from models.richsem.clip import load_clip
from models.richsem.teacher import Teacher
from tools.mini_clip import canvas, loss, model
from tools.mini_clip.evaluate import box_accuracy, class_texts, image_accuracy
from tools.mini_clip.images import Labelled, load_tree
from tools.mini_clip.model import MiniClipSize
from tools.mini_clip.muon import Muon, orthogonalised
from tools.mini_clip.train import TrainSettings, train
from tools.mini_clip.trunk import load_trunk, timm_state
from tools.train_mini_clip import main
from util.boxes import box_xyxy_to_cxcywh
from util.errors import UserError
from util.structures import PaddedImages, Target, Targets

TINY = MiniClipSize(embed_dim=16, vision_width=8, image_size=64, text_width=16, text_heads=2, text_layers=1)
COLOURS = {"red_thing": (220, 30, 30), "blue_thing": (30, 30, 220), "green_thing": (30, 200, 30)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three classes told by colour alone, and a fourth that has a name and no image."""
    root = tmp_path_factory.mktemp("tree")
    images, rng = [], np.random.default_rng(0)
    for class_id, (name, colour) in enumerate(COLOURS.items(), start=1):
        (root / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.clip(rng.normal(colour, 25, (70, 90, 3)), 0, 255).astype(np.uint8)
            file_name = f"{name}/{i}.png"
            Image.fromarray(pixels).save(root / "images" / file_name)
            images.append({"id": len(images) + 1, "file_name": file_name, "pos_category_ids": [class_id]})
    categories = [{"id": i, "name": n} for i, n in enumerate([*COLOURS, "unseen_thing"], start=1)]
    content = {"categories": categories, "images": images, "annotations": []}
    (root / "imagenet_lvis_image_info.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def trained(tree):
    data = load_tree(tree, 64, 0.25, np.random.default_rng(0))
    settings = TrainSettings(steps=45, canvases=2, canvas_side=128, tile=(40, 70), warmup=5, lr=5e-3)
    losses: list[str] = []
    clip = train(data, TINY, settings, torch.device("cpu"), report=losses.append)
    model.round_to_file(clip)
    return data, clip


def test_the_tree_is_split_by_class_and_shrunk(tree):
    data = load_tree(tree, 64, 0.25, np.random.default_rng(0))
    assert data.names == (*COLOURS, "unseen_thing")
    assert np.bincount(data.train.labels).tolist() == [6, 6, 6]
    assert np.bincount(data.held_out.labels).tolist() == [2, 2, 2]
    assert all(min(p.size) == 64 for p in data.train.images)
    assert len(load_tree(tree, 64, 0.0, np.random.default_rng(0)).held_out) == 0


def test_a_broken_tree_is_named(tree, tmp_path):
    with pytest.raises(UserError, match="imagenet_lvis_image_info"):
        load_tree(tmp_path, 64, 0.1, np.random.default_rng(0))
    (tmp_path / "imagenet_lvis_image_info.json").write_text(
        (tree / "imagenet_lvis_image_info.json").read_text()
    )
    with pytest.raises(UserError, match=r"red_thing/\d\.png: no such image"):
        load_tree(tmp_path, 64, 0.1, np.random.default_rng(0))


def test_classes_are_drawn_equally_often_and_every_image_before_any_repeats():
    labels = np.array([0] * 2 + [1] * 10)
    order = canvas.balanced_order(labels, np.random.default_rng(0))
    drawn = [next(order) for _ in range(40)]
    assert (labels[drawn] == 0).sum() == 20
    of_one = [d for d in drawn if labels[d] == 1]
    assert sorted(of_one[:10]) == sorted(of_one[10:]) == list(range(2, 12))


def test_a_canvas_is_covered_by_its_regions():
    images = tuple(Image.new("RGB", (50, 40), (c, c, c)) for c in (40, 200))
    data = Labelled(images, np.array([0, 1]))
    rng = np.random.default_rng(0)
    batch = canvas.draw_batch(data, canvas.balanced_order(data.labels, rng), 3, 128, (30, 60), rng)
    assert batch.pixels.shape == (3, 128, 128, 3)
    covered = np.zeros((3, 128, 128), dtype=int)
    for number, x0, y0, x1, y1 in batch.regions.astype(int):
        covered[number, y0:y1, x0:x1] += 1
    assert (covered == 1).all()
    for (number, x0, y0, x1, y1), label in zip(batch.regions.astype(int), batch.labels, strict=True):
        assert (batch.pixels[number, y0:y1, x0:x1].mean() > 120) == bool(label)


def test_losses_are_lowest_for_the_right_match():
    image = F.normalize(torch.eye(3)[[0, 0, 1, 2]] + 0.1, dim=-1)
    text, labels = torch.eye(3), torch.tensor([0, 0, 1, 2])
    right = loss.contrastive_loss(image, text, labels, torch.tensor(20.0))
    wrong = loss.contrastive_loss(image, text, labels.roll(1), torch.tensor(20.0))
    assert right < 0.5 < wrong
    # A text that no region shows is a negative, not a division by zero.
    more = loss.contrastive_loss(image, torch.eye(4)[:, :3], labels, torch.tensor(20.0))
    assert torch.isfinite(more)
    assert loss.spread_loss(torch.eye(4)).abs() < 1e-6 < loss.spread_loss(torch.ones(4, 3) / 3**0.5)


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 40, 16), (1, 30, 30)])
def test_muons_matrices_are_near_orthogonal(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    # The quintic trades exactness for speed: about 1, whatever the values were.
    assert values.min() > 0.3 and values.max() < 1.5


def test_muon_steps_downhill_by_its_rate_alone():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(24, 8, 3, 3))
    aim = torch.randn(24, 8, 3, 3)
    for scale in (1.0, 1e-3):
        with torch.no_grad():
            weight.zero_()
        optimizer = Muon([weight], lr=0.1)
        weight.grad = -scale * aim
        optimizer.step()
        moved = torch.linalg.svdvals(weight.detach().reshape(24, 72))
        assert (weight * aim).sum() > 0 and moved.min() > 0.03 and moved.max() < 0.15


def test_a_large_square_matrix_is_taken_head_by_head():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    weight.grad = torch.randn(16, 16)
    Muon([weight], lr=-1.0, heads=4, widest=8).step()
    blocks = torch.linalg.svdvals(weight.detach().view(4, 4, 16))
    assert (blocks > 0.3).all() and (blocks < 1.5).all()


def test_it_learns_in_45_steps(trained):
    data, clip = trained
    texts = class_texts(clip, data.names)
    assert image_accuracy(clip, data.held_out, texts) == 1.0
    assert 1 < clip.logit_scale.exp() <= 100
    # Names without an image get a direction of their own.
    assert (texts[3] @ texts[:3].T).max() < 0.95


def test_the_detectors_loader_reads_the_same_model_back(trained, tmp_path):
    _, clip = trained
    config, weights = model.save(clip, TINY, tmp_path, "tiny_test_clip")
    read = load_clip(str(config), str(weights))
    pixels = torch.randn(2, 3, 64, 64)
    tokens = torch.randint(1, 400, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(read.encode_image(pixels), clip.encode_image(pixels), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(read.encode_text(tokens), clip.encode_text(tokens), rtol=1e-4, atol=1e-4)
    state = read.state_dict()
    assert all(torch.equal(state[k], v) for k, v in clip.state_dict().items())
    default = model.save(model.build(MiniClipSize()), MiniClipSize(), tmp_path, "full")[1]
    assert default.stat().st_size <= 8e6


def test_regions_are_those_of_the_teacher(trained):
    _, clip = trained
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
    boxes = torch.tensor([[10.0, 20.0, 60.0, 80.0], [0.0, 0.0, 128.0, 96.0]])
    regions = torch.cat((torch.zeros(2, 1), boxes), dim=1)
    with torch.no_grad():
        ours = F.normalize(model.encode_regions(clip.visual, model.normalise(image[None]), regions), dim=-1)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    student = ((image / 255 - mean) / std).permute(2, 0, 1)
    target = Target(
        box_xyxy_to_cxcywh(boxes) / torch.tensor([128, 96, 128, 96]),
        torch.zeros(2, dtype=torch.int64),
        1,
        (96, 128),
        (96, 128),
    )
    seen = Teacher(clip.visual)(PaddedImages.from_list([student]), Targets.from_list([target]))
    torch.testing.assert_close(seen.ground_truth, ours, rtol=0, atol=1e-4)


def test_boxes_of_scenes_can_be_measured(trained, tmp_path):
    data, clip = trained
    (tmp_path / "val2017").mkdir()
    scene = np.zeros((64, 128, 3), dtype=np.uint8)
    scene[:, :64], scene[:, 64:] = COLOURS["red_thing"], COLOURS["blue_thing"]
    Image.fromarray(scene).save(tmp_path / "val2017/1.png")
    content = {
        "images": [{"id": 1, "coco_url": "http://x/val2017/1.png"}],
        "categories": [{"id": i + 1, "name": n, "frequency": "f"} for i, n in enumerate(data.names)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 64, 64]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [64, 0, 64, 64]},
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    result = box_accuracy(clip, tmp_path / "val.json", tmp_path, class_texts(clip, data.names), 2.0)
    assert set(result) == {"all", "f"} and result["all"] == 1.0


def test_the_command_writes_both_files(tree, tmp_path, capsys):
    main(["--images", str(tree), "--output", str(tmp_path / "clip"), "--steps", "1"])
    assert (tmp_path / "clip/mini_clip.json").is_file()
    assert (tmp_path / "clip/mini_clip.safetensors").is_file()
    assert "held-out images, top-1 of 4" in capsys.readouterr().out
    with pytest.raises(UserError, match="--steps"):
        main(["--images", str(tree), "--output", str(tmp_path), "--steps", "0"])


TRUNK = "test_efficientnet"


@pytest.fixture(scope="module")
def trunk_weights(tmp_path_factory):
    """Random weights of the trunk under the names of another package, with statistics unlike initial ones."""
    torch.manual_seed(3)
    state = timm.create_model(TRUNK).state_dict()
    for name, tensor in state.items():
        if "running_" in name:
            tensor.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("trunk") / "weights.pth"
    torch.save({f"_net.{i}.{name.rsplit('.', 1)[-1]}": t for i, (name, t) in enumerate(state.items())}, path)
    return path, state


def test_weights_of_another_package_are_taken_in_timms_order(trunk_weights, tmp_path):
    path, state = trunk_weights
    found = timm_state(TRUNK, path)
    assert list(found) == list(state) and all(torch.equal(found[k], v) for k, v in state.items())
    other = torch.load(path)
    names = list(other)
    torch.save({k: other[k] for k in (names[0], names[2], names[1], *names[3:])}, tmp_path / "turned.pth")
    with pytest.raises(
        UserError, match=r"turned.pth does not fit 'test_efficientnet': _net.2.bias \(.*bn1.weight"
    ):
        timm_state(TRUNK, tmp_path / "turned.pth")
    with pytest.raises(UserError, match=f"it has {len(state)} tensors, the model"):
        timm_state("test_resnet", path)
    with pytest.raises(UserError, match="Did you mean 'test_efficientnet'"):
        timm_state("test_eficientnet", path)


def test_a_loaded_trunk_sees_the_same_image_in_clips_normalisation(trunk_weights):
    path, state = trunk_weights
    clip = model.build(MiniClipSize(trunk=TRUNK))
    load_trunk(clip.visual, TRUNK, path)
    own, trunk = timm.create_model(TRUNK).eval(), clip.visual.trunk.eval()
    own.load_state_dict(state)
    image = torch.randint(0, 255, (1, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = (torch.tensor(own.default_cfg[key]) for key in ("mean", "std"))
    pixels = ((image / 255 - mean) / std).permute(0, 3, 1, 2)
    assert not torch.equal(mean, torch.tensor((0.48145466, 0.4578275, 0.40821073)))
    with torch.no_grad():
        expected = own.bn1(own.conv_stem(pixels))
        found = trunk.bn1(trunk.conv_stem(model.normalise(image)))
    # The border is padded with zeros, which are another colour.
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def test_a_teacher_with_a_pretrained_trunk(tree, trunk_weights, tmp_path, capsys):
    path, state = trunk_weights
    words = ["--images", str(tree), "--output", str(tmp_path), "--steps", "2", "--name", "with_trunk"]
    main([*words, "--trunk", TRUNK, "--trunk_weights", str(path)])
    clip = load_clip(str(tmp_path / "with_trunk.json"), str(tmp_path / "with_trunk.safetensors"))
    trunk = clip.visual.trunk
    assert torch.equal(trunk.bn2.running_var, state["bn2.running_var"])  # kept, in float32
    change = (trunk.conv_head.weight - state["conv_head.weight"]).abs().max()
    assert 0 < change < 0.02  # of the same magnitude as its learning rate
    image = PaddedImages.from_list([torch.rand(3, 64, 96)])
    boxes = Targets.from_list(
        [Target(torch.tensor([[0.5, 0.5, 1, 1]]), torch.zeros(1).long(), 1, (64, 96), (64, 96))]
    )
    assert Teacher(clip.visual)(image, boxes).ground_truth.shape == (1, 128)
    with pytest.raises(UserError, match="--trunk_weights needs --trunk"):
        main([*words, "--trunk_weights", str(path)])
