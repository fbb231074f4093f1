"""The doctor opens every layout that training reads, and names what it finds by file and row."""

import pytest

from config import Config
from tests.datasets.annotations.test_layouts import SPLIT, WHOLE, name_of
from tools.data_doctor.examination import Examination, Reading
from tools.data_doctor.findings import Severity

CONFIG = Config(use_imagenet=False)


@pytest.mark.parametrize("write", (*SPLIT, *WHOLE), ids=name_of)
def test_healthy_data_of_every_layout(tmp_path, write):
    write(tmp_path)
    examination = Examination(tmp_path, Reading(CONFIG, val_required=write in SPLIT))
    examination.run()
    assert {part.split for part in examination.parts} == ({"train", "val"} if write in SPLIT else {"train"})
    assert all(part.table is not None and part.images is not None for part in examination.parts)
    assert [f.what for f in examination.findings if f.severity == Severity.ERROR] == []
