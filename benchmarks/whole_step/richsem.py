"""Ours as a side: the product's step, evaluation, and criterion, of this revision or of 18081fd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .spec import CLASSES, SMALL, Spec, random_batch

PARTS = ("teacher", "backbone", "neck", "encoder", "query_selection", "denoising", "decoder", "head")


class RichSem:
    """Ours, of this revision or of 18081fd."""

    def __init__(self, spec: Spec) -> None:
        from config import load
        from engine.build import build_settings, build_state
        from models.richsem import build
        from models.richsem.classifier import TextEmbeddings

        self.spec, self.device = spec, torch.device(spec.device)
        options = {**(SMALL if spec.small else {}), "use_visual_distill": spec.teacher, **spec.options}
        config = load(f"{spec.tree}/config/RichSem/richsem_4scale.py", options)
        # Weights and text embeddings are random: a step takes as long with them, and nothing is fetched.
        build.encode_vocabulary = lambda *_: TextEmbeddings(torch.randn(CLASSES, 1024), 4.6)
        names, counts = [f"class {i}" for i in range(CLASSES)], [i % 50 + 1 for i in range(CLASSES)]
        clip = build.Clip(random_clip(), None)
        try:
            parts = build.build_model(config, names, counts, self.device, clip=clip, load_backbone=False)
        except TypeError:  # 18081fd moves the parts itself
            parts = build.build_model(config, names, counts, clip=clip, load_backbone=False)
        self.parts, self.settings = parts, build_settings(config, self.device)
        weight = next(p for p in parts.model.backbone.parameters() if p.dim() == 4 and p.shape[-1] > 1)
        layout = "channels last" if weight.is_contiguous(memory_format=torch.channels_last) else "contiguous"
        self.precision = f"{self.settings.autocast_dtype or torch.float32}, {layout}".removeprefix("torch.")
        self.batch = self._batch()
        if spec.what == "inference":
            parts.model.eval()
            self.run = self._detect
            return
        parts.model.train()
        try:
            from engine.freeze import hold_frozen_statistics
            from engine.train_epoch import Task, TrainStep
        except ImportError:  # 18081fd
            from engine.train import Stepper as TrainStep
            from engine.train import Task
        else:
            hold_frozen_statistics(parts.model)
        task = Task(parts.model, parts.criterion, parts.teacher)
        state = build_state(config, parts.model, 1000, self.device)
        self.state, self.train_step, self.iteration = state, TrainStep(task, state, self.settings, 10**6), 0
        self.run = self._step
        if spec.what == "criterion":
            self._record_decoder()

    def modules(self) -> dict[str, nn.Module]:
        """Parts by name, as far as this model has them."""
        found = {name: getattr(self.parts.model, name, None) for name in PARTS}
        found |= {"teacher": self.parts.teacher, "criterion": self.parts.criterion}
        return {name: part for name, part in found.items() if isinstance(part, nn.Module)}

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.state.optimizer

    def _batch(self) -> tuple[Any, Any]:
        from util import structures

        spec, numbers = self.spec, torch.Generator().manual_seed(1)
        size = (spec.height, spec.width)
        pixels, targets = random_batch(spec, numbers)
        images = structures.PaddedImages.from_list(list(pixels))
        given = [
            structures.Target(boxes, labels, i, size, size, False)
            for i, (boxes, labels) in enumerate(targets)
        ]
        if not hasattr(structures, "Targets"):  # 18081fd
            return images, tuple(given)
        return images, structures.Targets.from_list(given)

    def _step(self) -> Tensor:
        losses = self.train_step(self.iteration, self.batch)
        self.iteration += 1
        return losses["total"]

    @torch.inference_mode()
    def _detect(self) -> Tensor:
        from engine import evaluate

        if hasattr(evaluate, "detect"):
            found = evaluate.detect(self.parts.model, self.batch, self.parts.postprocess, self.settings)
        else:  # 18081fd, as its loop has it
            images, targets = evaluate.to_device(self.batch, self.device)
            with evaluate.autocast(self.device, self.settings.autocast_dtype):
                output = self.parts.model(images)
            sizes = [t.original_size for t in targets]
            found = [d.to("cpu") for d in self.parts.postprocess(output, sizes)]
        return found[0].scores[0]

    def _record_decoder(self) -> None:
        """Has the parts up to the decoder say what they said once, as leaves of the graph."""
        images, targets = self.batch
        recorded: dict[str, Any] = {}
        names = ("backbone", "neck", "encoder", "query_selection", "decoder")
        model = self.parts.model
        handles = [
            getattr(model, name).register_forward_hook(
                lambda _, __, output, name=name: recorded.update({name: output})
            )
            for name in names
        ]
        images = images.to(self.device).normalised()
        targets = targets.to(self.device) if hasattr(targets, "to") else [t.to(self.device) for t in targets]
        model(images, targets)
        for handle in handles:
            handle.remove()
        leaves: list[Tensor] = []
        for name in names:
            getattr(model, name).forward = says(as_leaves(recorded[name], leaves))
        semantic = self.parts.teacher(images, targets) if self.parts.teacher is not None else None

        def run() -> Tensor:
            total = self.parts.criterion(model(images, targets), targets, semantic).total
            total.backward()
            for tensor in [*leaves, *model.parameters()]:
                tensor.grad = None
            return total.detach()

        self.run = run


def says(output: Any) -> Callable[..., Any]:
    """A module's `forward` that does nothing but say what that said once."""
    return lambda *_, **__: output


def as_leaves(value: Any, leaves: list[Tensor]) -> Any:
    """The same output cut off from the graph before it; its differentiable tensors are noted in `leaves`."""
    if isinstance(value, Tensor):
        if not value.requires_grad:
            return value
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]
    if isinstance(value, (list, tuple)):
        return type(value)(as_leaves(v, leaves) for v in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: as_leaves(getattr(value, f.name), leaves) for f in fields(value) if f.init}
        )
    return value


def random_clip() -> nn.Module:
    """OpenAI's RN50 with random weights."""
    import open_clip

    return open_clip.create_model("RN50-quickgelu", pretrained=None).eval().requires_grad_(False)
