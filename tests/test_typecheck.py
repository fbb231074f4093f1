"""The check of annotations is on under the tests, and off where the program runs."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from tests.source_files import ROOT
from util.boxes import box_cxcywh_to_xyxy


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError, match="boxes_cxcywh"):
        box_cxcywh_to_xyxy(torch.rand(2, 5))


def test_production_checks_nothing():
    program = """
import sys
from util import boxes
sys.exit("beartype" in sys.modules or hasattr(boxes.generalized_iou, "__wrapped__"))
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
