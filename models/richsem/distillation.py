"""The loss of the semantic branch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from models.dino.criterion import PredictionSet
from models.dino.federated import ClassSample
from models.richsem.classifier import TextEmbeddings
from models.richsem.teacher import SemanticTargets
from util.structures import Targets

# Logit of a class outside of the sample: its probability is 0 in float32.
_NEVER = -1e4


class DistillationLoss:
    """Student embeddings against what the teacher saw (paper section 3.2).

    kind 'clip_logits': KL divergence of the two distributions over the class texts; 'clip_l1': sum of
    absolute differences of the unit vectors (official `distill_type`).
    objective 'gt': matched queries against their ground-truth boxes; 'pred': matched queries against the
    boxes that entered the layer; 'pred_all': every query against those boxes, normalised by their number
    (official `clip_distill_objective`).
    entropy_weight: each row is weighted by 2 H(teacher) / ln C, H over all classes (official
    `use_dynamic_distill_weight`). federated: both distributions are over the call's federated classes
    only (official `use_fed_on_kd`). named_only: only what the teacher names right, of all classes, is learnt
    (ours). weight: of the loss (official `distill_loss_coef`).
    """

    def __init__(
        self,
        text: TextEmbeddings,
        *,
        kind: str,
        objective: str,
        entropy_weight: bool = False,
        federated: bool = False,
        named_only: bool = False,
        weight: float = 1.0,
    ):
        self.weights = {"loss_distill": weight}
        self.text = text
        self.kind = kind
        self.objective = objective
        self.entropy_weight = entropy_weight
        self.federated = federated
        self.named_only = named_only

    def __call__(
        self, predictions: PredictionSet, targets: Targets, semantic: SemanticTargets | None
    ) -> dict[str, Tensor]:
        """'loss_distill' of a set that has the branch's embeddings; nothing without a teacher."""
        if semantic is None or predictions.outputs.embedding is None:
            return {}
        student, teacher, num_boxes = self._pairs(predictions, semantic)
        rows = self._rows(student, teacher, predictions.sample if self.federated else None)
        if self.entropy_weight or self.named_only:
            logits = self.text.logits(teacher)
            if self.entropy_weight:
                rows = rows * _entropy_weights(logits)
            if self.named_only:
                rows = rows * (logits.argmax(-1) == predictions.labels)
        if predictions.taught is not None and self.objective != "pred_all":
            rows = rows * predictions.taught
        return {"loss_distill": rows.sum() / num_boxes}

    def _pairs(self, predictions: PredictionSet, semantic: SemanticTargets) -> tuple[Tensor, Tensor, Tensor]:
        outputs, matches, num_boxes = predictions.outputs, predictions.matches, predictions.num_boxes
        embedding, reference_boxes = outputs.embedding, outputs.reference_boxes
        assert embedding is not None and reference_boxes is not None
        if self.objective == "pred_all":
            batch, queries, width = embedding.shape
            image = torch.arange(batch, device=embedding.device).repeat_interleave(queries)
            teacher = semantic.embed_boxes(reference_boxes.flatten(0, 1), image)
            count = num_boxes.new_full((), float(max(batch * queries, 1)))
            return embedding.reshape(-1, width), teacher, count
        student = embedding[matches.image, matches.query]
        if self.objective == "gt":
            return student, semantic.ground_truth[matches.target], num_boxes
        boxes = reference_boxes[matches.image, matches.query]
        return student, semantic.embed_boxes(boxes, matches.image), num_boxes

    def _rows(
        self,
        student: Float[Tensor, "K E"],
        teacher: Float[Tensor, "K E"],
        sample: ClassSample | None,
    ) -> Float[Tensor, " K"]:
        """(K, E), (K, E) -> (K,)."""
        if self.kind == "clip_l1":
            return (student - teacher.to(student.dtype)).abs().sum(-1)
        log_student, log_teacher = (self._log_probabilities(unit, sample) for unit in (student, teacher))
        return (log_teacher.exp() * (log_teacher - log_student)).sum(-1)

    def _log_probabilities(
        self, unit: Float[Tensor, "K E"], sample: ClassSample | None
    ) -> Float[Tensor, "K _"]:
        """Over all classes, or those of the sample."""
        if sample is None:
            return self.text.logits(unit).log_softmax(-1)
        # Not infinite: a probability of 0 times the logarithm of its ratio is 0, not NaN.
        return self.text.logits(unit, sample.columns).masked_fill(~sample.valid, _NEVER).log_softmax(-1)


def _entropy_weights(logits: Float[Tensor, "K C"]) -> Float[Tensor, " K"]:
    log_teacher = logits.log_softmax(-1)
    entropy = -(log_teacher.exp() * log_teacher).sum(-1)
    return 2 * entropy / math.log(log_teacher.shape[-1])
