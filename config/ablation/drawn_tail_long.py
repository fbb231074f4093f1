"""The parts of RichSem on the drawn tail, trained three times as long: does the gain last?"""

_base_ = ["drawn_tail.py"]

images = 52992
options = {"eval_interval": 12}
only = [
    "DINO",
    "+ text classifier",
    "+ image-level stream, max-score in the last third",
    "RichSem, late, named only",
]
