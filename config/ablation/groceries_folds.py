"""RichSem against DINO on the groceries: five folds of training and validation photographs.

The image-level stream comes late, as in the quickstart. The semantic branch learns only from boxes that the
teacher names right: it has seen images of 8 of the 18 classes.
"""

_base_ = ["groceries.py"]

folds = 5
options = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
rows = {
    "_delete_": True,
    "DINO": {"use_imagenet": False, "use_visual_distill": False, "use_language": False},
    "RichSem, late, named only, more of the rare": {"distill_named_only": True, "image_level_repeat_sh": 1.0},
}
compare = []
