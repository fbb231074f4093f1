"""The component that all of CLIP's texts share.

OpenAI's text embeddings point much the same way (cosines of 0.6 to 0.8 between classes), and its logit scale
is 100. RichSem's classifier has no bias: only because of that common direction can a query be far from every
class and say 'none of these'. A contrastive loss does not ask for such a direction, as it moves all logits
alike, and a small CLIP trained for a minute spreads its texts around zero instead.
"""

import math

import torch
from open_clip.model import CLIP


@torch.no_grad()
def add_common_component(model: CLIP, ratio: float = 2.0) -> None:
    """Adds to every text embedding, in place, the same vector of `ratio` times their usual length.

    Texts come from a LayerNorm, whose rows have a fixed sum before gain and bias: along 1 / gain all are
    alike, so one more term of the projection is a constant. It points where no text points. The logit scale
    grows by as much as the cosines shrink: classification stays as it was.
    """
    norm, projection = model.ln_final, model.text_projection
    along = 1 / norm.weight
    constant = float((norm.bias * along).sum())
    if abs(constant) < 1e-3:  # all bias against the gain: give it a little of its own
        norm.bias += 0.1 * along / along.square().sum()
        constant += 0.1
    # A direction that no text uses: outside the row space of the projection.
    _, _, directions = torch.linalg.svd(projection, full_matrices=True)
    unused = directions[-1]
    length = typical_length(model)
    projection += torch.outer(along, unused) * (ratio * length / constant)
    model.logit_scale += 0.5 * math.log(1 + ratio**2)


def typical_length(model: CLIP) -> float:
    """Root mean square length of text embeddings whose LayerNorm output is spread evenly."""
    gain, bias, projection = model.ln_final.weight, model.ln_final.bias, model.text_projection
    spread = (gain[:, None] * projection).square().sum()
    return float((spread + (bias @ projection).square().sum()).sqrt())
