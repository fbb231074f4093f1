"""The parts of RichSem on the groceries: five folds of training and validation photographs.

The image-level stream comes late, as in the quickstart. The semantic branch learns only from boxes that the
teacher names right: it has seen images of 8 of the 18 classes.
"""

_base_ = ["groceries.py"]

folds = 5
options = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
_RARE = {"image_level_repeat_sh": 1.0}
rows = {
    "+ image-level stream, more of the rare": {"use_visual_distill": False, **_RARE},
    # Photographs of another kind, in steps as long as any other, cost it boxes that fit closely.
    "RichSem, late, weight 0.2": {"distill_named_only": True, **_RARE, "image_level_weight": 0.2},
}
only = [
    "DINO",
    "+ text classifier",
    "semantic branch, boxes alone, named only",
    "+ image-level stream, more of the rare",
    "RichSem, late, named only, more of the rare",
    "RichSem, late, weight 0.2",
]
compare = [
    ["semantic branch, boxes alone, named only", "+ text classifier"],
    ["+ image-level stream, more of the rare", "+ text classifier"],
    ["RichSem, late, named only, more of the rare", "+ image-level stream, more of the rare"],
    ["RichSem, late, weight 0.2", "RichSem, late, named only, more of the rare"],
    ["RichSem, late, weight 0.2", "+ text classifier"],
]
