"""The steps of the method as rows of a grid: DINO, then each part alone, and all with one thing changed."""

_BOXES = {"use_imagenet": False}
_NO_BRANCH = {"use_visual_distill": False}
_LATE = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
rows = {
    "DINO": {**_BOXES, **_NO_BRANCH, "use_language": False},
    "+ text classifier": {**_BOXES, **_NO_BRANCH},
    "+ image-level stream": {**_NO_BRANCH},
    "+ image-level stream, max-score in the last third": {**_NO_BRANCH, **_LATE},
    "semantic branch, boxes alone": {**_BOXES},
    "RichSem (all)": {},
    "RichSem, objective pred": {"clip_distill_objective": "pred"},
    "RichSem, no box losses on image-level": {"mask_bbox": True, "mask_giou": True},
    "RichSem, max-size": {"image_level_loss": "max_size"},
    "RichSem, max-score in the last third": {**_LATE},
    "RichSem, late, named only": {**_LATE, "distill_named_only": True},
    "semantic branch, boxes alone, named only": {**_BOXES, "distill_named_only": True},
    "RichSem, streams 2:1": {"main_weight": 2},
    "RichSem, streams 1:1": {"main_weight": 1},
}
baseline = "DINO"
compare = [
    ["+ image-level stream", "+ text classifier"],
    ["+ image-level stream, max-score in the last third", "+ text classifier"],
    ["semantic branch, boxes alone", "+ text classifier"],
    ["RichSem (all)", "+ text classifier"],
    ["RichSem (all)", "+ image-level stream"],
    ["RichSem, max-size", "RichSem (all)"],
    ["RichSem, late, named only", "+ text classifier"],
    ["RichSem, late, named only", "+ image-level stream, max-score in the last third"],
    ["RichSem, late, named only", "RichSem, max-score in the last third"],
    ["RichSem, late, named only", "semantic branch, boxes alone, named only"],
]
