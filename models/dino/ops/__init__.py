"""Multi-scale deformable attention: one op in two forms, and the module around it."""

from .functional import ms_deform_attn, ms_deform_attn_fused, standard_operators
from .module import MSDeformAttn

__all__ = ["MSDeformAttn", "ms_deform_attn", "ms_deform_attn_fused", "standard_operators"]
