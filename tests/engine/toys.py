"""A whole training task in miniature: real torch modules behind the engine's protocols."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config.schema import Config
from engine.build import build_settings, build_state, wrap_distributed
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.train_epoch import Task
from util import distributed
from util.structures import Detections, PaddedImages, Target, Targets

SIDE = 4


def config(**changes) -> Config:
    """The real config with small numbers."""
    small = {"epochs": 3, "lr": 0.01, "lr_backbone": 0.001, "lr_drop": 2, "clip_max_norm": 1.0, "amp": False}
    return Config(**{**small, "use_ema": True, "ema_decay": 0.9, "log_interval": 2, **changes})


class ToyDetector(nn.Module):
    """One box per image. `hint` joins in only for images that have boxes."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 4)
        self.hint = nn.Parameter(torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, images: PaddedImages, targets: Targets | None = None) -> Tensor:
        features = torch.relu(self.backbone(images.tensor.mean(dim=(2, 3))))
        boxes = self.head(self.dropout(self.norm(features)))
        if self.training:
            self.calls += 1
            hinted = [i for i, t in enumerate(targets or ()) if len(t)]
            if hinted:
                boxes = boxes.index_add(
                    0, torch.tensor(hinted), self.hint.expand(len(hinted), 4).to(boxes.dtype)
                )
        return boxes.sigmoid()


@dataclass(frozen=True)
class ToyLosses:
    total: Tensor
    named: dict[str, Tensor]


class ToyCriterion:
    """L1 per box over the mean number of boxes a rank; without boxes a constant zero with no parameter."""

    def __call__(self, output: Tensor, targets: Targets, semantic: Tensor | None) -> ToyLosses:
        count = torch.tensor(float(sum(len(t) for t in targets)))
        num_boxes = distributed.all_reduce_mean(count).clamp(min=1)
        loss = torch.zeros((), requires_grad=True)
        for boxes, target in zip(output.float(), targets, strict=True):
            if len(target):
                loss = loss + (boxes - target.boxes_cxcywh).abs().sum() / num_boxes
        named = {"loss_bbox": loss.detach()}
        total = loss
        if semantic is not None:
            assert not semantic.requires_grad
            distill = (output.float().mean(1) - semantic).square().mean()
            named["loss_distill"] = distill.detach()
            total = total + 0.1 * distill
        return ToyLosses(total, named)


class ToyTeacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: PaddedImages, targets) -> Tensor:
        return self.scale * images.tensor.mean(dim=(1, 2, 3))


class ToyLoader:
    """Batches of this rank, in an order that depends on the epoch."""

    def __init__(self, images: list[tuple[Tensor, Target]], batch_size: int, shuffle: bool = False) -> None:
        self.images, self.batch_size, self.shuffle = images, batch_size, shuffle
        self.epoch = self.offset = 0

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        self.epoch, self.offset = epoch, offset

    def damaged(self) -> list[str]:
        return []

    def missing(self) -> list[str]:
        return []

    def __len__(self) -> int:
        return len(self.images) // (self.batch_size * distributed.world_size())

    def __iter__(self):
        order = list(range(len(self.images)))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(len(order), generator=generator).tolist()
        order = order[distributed.rank() :: distributed.world_size()]
        for start in range(self.offset * self.batch_size, len(self) * self.batch_size, self.batch_size):
            chosen = [self.images[i] for i in order[start : start + self.batch_size]]
            images = PaddedImages.from_list([image for image, _ in chosen])
            yield images, Targets.from_list([target for _, target in chosen])


class ToyEvaluator:
    """AP is one minus the mean score: enough to follow the weights."""

    def __init__(self) -> None:
        self.scores: dict[int, float] = {}

    def update(self, image_ids: list[int], detections: list[Detections]) -> None:
        for image_id, found in zip(image_ids, detections, strict=True):
            assert found.scores.device.type == "cpu"
            assert image_id not in self.scores
            self.scores[image_id] = found.scores.sum().item()

    def finish(self) -> dict[str, float] | None:
        parts = distributed.all_gather_object(self.scores)
        scores = {k: v for part in parts for k, v in part.items()}
        return {"AP": sum(scores.values()) / len(scores), "APr": -1.0} if distributed.is_main() else None


def toy_postprocess(output: Tensor, original_sizes: list[tuple[int, int]]) -> list[Detections]:
    boxes = output.detach().float()
    assert len(boxes) == len(original_sizes)
    return [Detections(b.mean()[None], torch.zeros(1, dtype=torch.int64), b[None]) for b in boxes]


def toy_images(count: int = 8, boxes: int = 1, seed: int = 0) -> list[tuple[Tensor, Target]]:
    """Images with ids 100, 101 ... and `boxes` boxes each."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for index in range(count):
        box = torch.rand(boxes, 4, generator=generator)
        labels = torch.zeros(boxes, dtype=torch.int64)
        target = Target(box, labels, 100 + index, (SIDE, SIDE), (SIDE, SIDE))
        images.append((torch.randn(3, SIDE, SIDE, generator=generator), target))
    return images


@dataclass
class Toy:
    """Everything that `fit` is handed."""

    task: Task
    state: TrainingState
    loader: ToyLoader
    settings: TrainSettings


def make_toy(loader: ToyLoader, teacher: bool = False, seed: int = 1, model=None, **changes) -> Toy:
    torch.manual_seed(seed)
    settings = build_settings(config(**changes), torch.device("cpu"), batches=len(loader))
    model = model if model is not None else ToyDetector()
    state = build_state(config(**changes), model, len(loader), torch.device("cpu"))
    wrapped = wrap_distributed(model, torch.device("cpu"))
    task = Task(wrapped, ToyCriterion(), ToyTeacher() if teacher else None)
    return Toy(task, state, loader, settings)
