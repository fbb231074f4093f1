"""Exported graphs to files."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

import torch
from torch.export import ExportedProgram

from inference.export.info import INPUTS, KEY, OUTPUTS, ExportInfo
from util.errors import UserError, first_line
from util.files import atomic_path
from util.optional import require

OPSET = 18


def write_onnx(program: ExportedProgram, info: ExportInfo, path: Path) -> None:
    """Translates the graph to ONNX.

    Raises UserError for an operator that ONNX lacks, a missing package, or a file that cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export")
    # It says which optimisations it did not make.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=INPUTS,
                output_names=OUTPUTS,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"ONNX cannot express this model: {_reason(error)}") from error
    assert exported is not None
    exported.model.metadata_props[KEY] = info.to_json()
    try:
        with atomic_path(path) as temporary:
            exported.save(temporary)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_pt2(program: ExportedProgram, info: ExportInfo, path: Path) -> None:
    """Raises UserError for a file that cannot be written."""
    try:
        with warnings.catch_warnings(), atomic_path(path) as temporary, temporary.open("wb") as file:
            warnings.simplefilter("ignore")
            torch.export.save(program, file, extra_files={KEY: info.to_json()})
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be written ({first_line(error)})") from error


def _reason(error: BaseException) -> str:
    """The operator that has no translation where the exporter names one, else its message."""
    chain: BaseException | None = error
    while chain is not None:
        if operator := re.search(r"No (?:ONNX function|decomposition)[^\n]*", str(chain)):
            return operator.group()[:200]
        chain = chain.__cause__
    return first_line(error)
