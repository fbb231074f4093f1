"""A `.pt2` file of torch.export as an `ImageModel`: PyTorch runs it, nothing of `models` is needed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.images.preprocess import NetworkInput
from inference.export.exported_model import ExportedModel, graph_inputs
from inference.export.info import KEY, ExportInfo
from inference.export.pt2_content import check_pt2
from util.errors import UserError, first_line


class Pt2Model(ExportedModel):
    """Runs a file of `tools/export.py --format torch` on the CPU.

    Raises UserError for a file that is missing, damaged or not of this project, and for one with more than
    sums in it: see `check_pt2`.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
        check_pt2(Path(path))
        entries: dict[str, Any] = {KEY: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path, extra_files=entries)
        except Exception as error:  # torch.export raises many kinds
            raise UserError(f"{path}: torch.export cannot load it ({first_line(error)})") from error
        if not entries[KEY]:
            raise UserError(f"{path}: is not an export of this project (it has no entry {KEY!r})")
        super().__init__(ExportInfo.from_json(entries[KEY], path))
        try:
            self._module = program.module()
        except Exception as error:  # its graph is put together here
            raise UserError(f"{path}: torch.export cannot load it ({first_line(error)})") from error

    @torch.no_grad()
    def run(self, batch: NetworkInput) -> list[np.ndarray]:
        inputs = [torch.from_numpy(array) for array in graph_inputs(batch).values()]
        return [output.numpy() for output in self._module(*inputs)]
