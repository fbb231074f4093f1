"""An exported ONNX file as an `ImageModel`. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.images.preprocess import NetworkInput
from inference.export.exported_model import ExportedModel, graph_inputs
from inference.export.info import KEY, OUTPUTS, ExportInfo
from util.errors import UserError, first_line
from util.optional import require

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxModel(ExportedModel):
    """Runs a file of `tools/export.py` with onnxruntime.

    device:  'auto' (a GPU where this onnxruntime has one), 'cpu' or 'cuda'.
    threads: of the CPU, 0 for all.
    Raises UserError for a file that is missing, damaged or not of this project, where onnxruntime is not
    installed, and for a device that it lacks.
    """

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0) -> None:
        runtime = require("onnxruntime", "export")
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers = _providers(device, runtime.get_available_providers())
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise UserError(f"{path}: onnxruntime cannot load it ({first_line(error)})") from error
        entries = self._session.get_modelmeta().custom_metadata_map
        if KEY not in entries:
            raise UserError(f"{path}: is not an export of this project (it has no metadata {KEY!r})")
        super().__init__(ExportInfo.from_json(entries[KEY], path))

    def run(self, batch: NetworkInput) -> list[np.ndarray]:
        return self._session.run(list(OUTPUTS), graph_inputs(batch))


def _providers(device: str, available: Sequence[str]) -> list[str]:
    kind = device.partition(":")[0]
    if kind == "auto":
        return [p for p in (PROVIDERS["cuda"], PROVIDERS["cpu"]) if p in available]
    if PROVIDERS.get(kind) not in available:
        found = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        raise UserError(f"device {device!r}: this onnxruntime runs on {found}")
    return [PROVIDERS[kind]] if kind == "cpu" else [PROVIDERS[kind], PROVIDERS["cpu"]]
