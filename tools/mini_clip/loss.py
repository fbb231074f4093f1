"""CLIP's contrastive loss where several regions of a batch share a class."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(image: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Cross entropy both ways; a class's regions share its text, so a text's target is spread over them.

    image (R, E), text (T, E): unit vectors, one text per class; labels (R,): row of `text`; scale: exp of
    the learnt logit_scale.
    """
    logits = scale * image @ text.T
    to_text = F.cross_entropy(logits, labels)
    belongs = F.one_hot(labels, len(text)).T.to(logits.dtype)
    present = belongs.sum(1) > 0
    targets = belongs[present] / belongs[present].sum(1, keepdim=True)
    to_image = F.cross_entropy(logits.T[present], targets)
    return 0.5 * (to_text + to_image)


def word_loss(image: Tensor, words: Tensor, belongs: Tensor, scale: Tensor) -> Tensor:
    """The same for the single words of the class names, of which a region has several.

    image (R, E) and words (W, E) unit vectors; belongs (R, W) bool: the word is in the region's class name.
    """
    logits = scale * image @ words.T
    shares = belongs.to(logits.dtype)
    to_words = F.cross_entropy(logits, shares / shares.sum(1, keepdim=True))
    present = belongs.any(0)
    to_image = F.cross_entropy(logits.T[present], (shares / shares.sum(0).clamp(min=1)).T[present])
    return 0.5 * (to_words + to_image)


def spread_loss(text: Tensor) -> Tensor:
    """How near the texts of different classes lie: log mean exp of 5 cosines, 0 at right angles.

    Names without an image get no other gradient; without it they would all share one embedding.
    """
    cosine = text @ text.T
    others = ~torch.eye(len(text), dtype=torch.bool, device=text.device)
    return torch.logsumexp(5 * cosine[others], 0) - torch.log(others.sum())
