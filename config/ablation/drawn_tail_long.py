"""The parts of RichSem on the drawn tail, trained three times as long: does the gain last?"""

_base_ = ["drawn_tail.py"]

images = 52992
options = {"eval_interval": 12}
_BOXES = {"use_imagenet": False}
_NO_BRANCH = {"use_visual_distill": False}
_LATE = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
rows = {
    "_delete_": True,
    "DINO": {**_BOXES, **_NO_BRANCH, "use_language": False},
    "+ text classifier": {**_BOXES, **_NO_BRANCH},
    "+ image-level stream, max-score in the last third": {**_NO_BRANCH, **_LATE},
    "RichSem, late, named only": {**_LATE, "distill_named_only": True},
}
compare = [
    ["+ image-level stream, max-score in the last third", "+ text classifier"],
    ["RichSem, late, named only", "+ image-level stream, max-score in the last third"],
    ["RichSem, late, named only", "+ text classifier"],
]
