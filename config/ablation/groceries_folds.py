"""The parts of RichSem on the groceries: five folds of training and validation photographs.

The image-level stream comes late, as in the quickstart. The semantic branch learns only from boxes that the
teacher names right: it has seen images of 8 of the 18 classes.
"""

_base_ = ["groceries.py"]

folds = 5
options = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
_BOXES = {"use_imagenet": False}
_NO_BRANCH = {"use_visual_distill": False}
_RARE = {"image_level_repeat_sh": 1.0}
_NAMED = {"distill_named_only": True, **_RARE}
rows = {
    "_delete_": True,
    "DINO": {**_BOXES, **_NO_BRANCH, "use_language": False},
    "+ text classifier": {**_BOXES, **_NO_BRANCH},
    "+ image-level stream, more of the rare": {**_NO_BRANCH, **_RARE},
    "RichSem, late, named only, more of the rare": _NAMED,
    # Photographs of another kind, in steps as long as any other, cost it boxes that fit closely.
    "RichSem, late, weight 0.2": {**_NAMED, "image_level_weight": 0.2},
}
compare = [
    ["+ image-level stream, more of the rare", "+ text classifier"],
    ["RichSem, late, named only, more of the rare", "+ image-level stream, more of the rare"],
    ["RichSem, late, weight 0.2", "RichSem, late, named only, more of the rare"],
    ["RichSem, late, weight 0.2", "+ text classifier"],
]
