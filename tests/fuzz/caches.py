"""Readers of what RichSem keeps beside data, or in its cache: damaged, it is made anew."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

from datasets.annotations.cache import open_annotations
from datasets.annotations.table import AnnotationTable
from datasets.images.tar_index import open_tar
from tests.datasets import tiny
from tests.fuzz.readers import READERS, reader


def _tar_index(folder: Path) -> bytes:
    (folder / "images.tar").write_bytes(READERS["tar"].whole(folder))
    open_tar(folder / "images.tar")
    return (folder / "images.tar.index").read_bytes()


@reader("images.tar.index", _tar_index, exact=True, cost=0.003)
def use_tar_index(path: Path) -> Any:
    index = open_tar(path.with_suffix(""))
    return {index.names[row]: index.read(row) for row in range(len(index))}


def _cached(folder: Path) -> tuple[Path, AnnotationTable]:
    """The cache entry of the annotations in a folder, and what a start with it reads."""
    with mock.patch.dict("os.environ", RICHSEM_CACHE=str(folder)):
        table = open_annotations(folder / "annotations.json", smallest=0)
    (entry,) = (folder / "annotations").glob("*.safetensors")
    return entry, table


def _annotation_cache(folder: Path) -> bytes:
    (folder / "annotations.json").write_text(json.dumps(tiny.detection_content(3, "val")[0]))
    return _cached(folder)[0].read_bytes()


@reader("cache.safetensors", _annotation_cache, exact=True, cost=0.005)
def use_annotation_cache(path: Path) -> Any:
    entry, _ = _cached(path.parent)
    # Another file: the columns of the one before may still be mapped.
    entry.unlink()
    entry.write_bytes(path.read_bytes())
    _, table = _cached(path.parent)
    arrays = [getattr(table, name).tobytes() for name in ("image_ids", "sizes", "boxes_xywh", "areas")]
    return arrays, table.categories, [table.file_names[i] for i in range(len(table))], table.warnings
