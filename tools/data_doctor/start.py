"""The start of a run, up to its first step, on the data: it may refuse what no check knows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.build import RunSettings, build_datasets
from tools.data_doctor.examination import Reading
from tools.data_doctor.findings import Finding, warnings_as_findings


def check_start(paths: Sequence[Path], reading: Reading, *, image_level: bool) -> list[Finding]:
    """What stops a run on these data sets.

    image_level: whether there are images with a label only.
    """
    config = replace(reading.config, use_imagenet=reading.config.use_imagenet and image_level)
    names = [str(path) for path in paths]
    settings = RunSettings(
        names[0] if len(names) == 1 else names,
        reading.dataset_file,
        allow_outside=reading.allow_outside,
    )
    findings: list[Finding] = []
    with warnings_as_findings("start of a run", findings, warnings=False):
        build_datasets(config, settings)
    return findings
