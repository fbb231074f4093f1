"""Every reader of files from outside, with a small whole file and what its users do with it."""

import functools
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from config import Config, load, parse_options
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.split_file import SPLIT_FILE, Split, SplitFile
from datasets.annotations.words import read_words
from datasets.evaluation.dataset_record import DATASET_FILE, DatasetRecord, RecordedClass
from datasets.evaluation.predictions import ROW, read_predictions
from datasets.images.tar_index import open_tar
from datasets.images.zip_index import open_zip
from engine.run_log import read_log
from inference.export.info import KEY, ExportInfo
from inference.pt2_model import Pt2Model
from inference.sources import find_sources
from models.dino.backbone import load_weights
from models.dino.ops import compiler
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from models.richsem.text_embeddings import text_embeddings
from tests.datasets import tiny as tiny_data
from tests.inference.tiny import make_checkpoint
from tests.models.tiny import tiny_clip, tokenizer
from tools.publish import publish
from util.hub import resolve


@dataclass(frozen=True)
class Reader:
    """name: of the file. whole: its content; files that it needs are put into the folder. use: reads it.

    exact: a damaged file never gives another result than the whole one: it is refused, or made anew.
    readable: whether the whole file is; an address is not without a network.
    cost: seconds of one input, roughly.
    """

    name: str
    whole: Callable[[Path], bytes]
    use: Callable[[Path], Any]
    exact: bool = False
    readable: bool = True
    cost: float = 0.001


READERS: dict[str, Reader] = {}


def reader(name: str, whole: Callable[[Path], bytes] | bytes | str, **options: Any):
    """Registers the function that reads it under its own name, without `use_`."""

    def register(use: Callable[[Path], Any]) -> Callable[[Path], Any]:
        content = whole.encode() if isinstance(whole, str) else whole
        make = content if callable(content) else lambda _: content
        READERS[use.__name__.removeprefix("use_")] = Reader(name, make, use, **options)
        return use

    return register


RESULTS = [
    {"image_id": i, "category_id": 1 + i % 2, "bbox": [1, 2.5, 30, 40], "score": 0.5 / (i + 1)}
    for i in range(6)
]


@reader("predictions.json", json.dumps(RESULTS))
def use_predictions_json(path: Path) -> None:
    read_predictions(path)


def _saved(save: Callable, *arrays: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


@reader("predictions.npy", _saved(np.save, np.ones(5, ROW)))
def use_predictions_npy(path: Path) -> None:
    np.array(read_predictions(path).boxes)


@reader(
    "predictions.npz",
    _saved(
        np.savez_compressed,
        image_id=np.arange(5),
        category_id=np.ones(5, int),
        score=np.ones(5),
        bbox=np.ones((5, 4)),
    ),
)
def use_predictions_npz(path: Path) -> None:
    read_predictions(path)


@reader("annotations.json", json.dumps(tiny_data.detection_content(3, "val")[0]))
def use_annotations(path: Path) -> None:
    read_annotations(path)


MEMBERS = {f"n01/{i}.JPEG": bytes([i]) * (300 * i) for i in range(1, 5)}


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in MEMBERS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@reader("images.zip", _zip())
def use_zip(path: Path) -> None:
    _read_members(open_zip(path))


@reader("images.tar", _tar())
def use_tar(path: Path) -> None:
    _read_members(open_tar(path))


def _read_members(index: Any) -> None:
    for row in range(len(index)):
        try:
            index.read(row)
        except OSError:  # a damaged member, which the caller names
            continue


@reader("words.txt", "cup\nold boat\ntin_can\nh\u00e4uschen\n")
def use_words(path: Path) -> None:
    read_words(path)


def _listed(folder: Path) -> bytes:
    for name in ("a.jpg", "b.png"):
        (folder / name).touch()
    return b"a.jpg\nb.png\n"


@reader("images.txt", _listed)
def use_image_list(path: Path) -> None:
    # A list may name any folder, the whole disk too, which takes its time.
    if not any(line.strip().startswith((b"/", b"..", b"*")) for line in path.read_bytes().splitlines()):
        find_sources([str(path)], path.parent / "out")


CONFIG = "lr = 1e-3\nepochs = 3\ndata_aug_scales = [480, 512]\nbackbone_args = {'depths': [2, 2]}\n"


@reader("config.py", CONFIG)
def use_config_file(path: Path) -> None:
    load(path)


@reader("options", "data_aug_scales=[480, 512]\nlr=1e-3\nbackbone_args.channels=[8, 16]\ntracker=none\n")
def use_options(path: Path) -> None:
    Config.from_dict(parse_options(path.read_text(encoding="utf-8", errors="replace").splitlines()))


@reader("saved.json", json.dumps(Config().to_dict()))
def use_saved_config(path: Path) -> None:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        Config.from_dict(values)


RECORD = DatasetRecord("/d", "lvis", "", "/d/a.json", "/d/i", "0" * 32, (RecordedClass("cup", "r", 3, None),))


def _record(folder: Path) -> bytes:
    RECORD.write(folder)
    return (folder / DATASET_FILE).read_bytes()


@reader(DATASET_FILE, _record)
def use_dataset_record(path: Path) -> None:
    DatasetRecord.read(path.parent)


def _split(folder: Path) -> bytes:
    SplitFile(0.2, 42, {"set": Split(("a.jpg", "b.jpg"), ("c.jpg",))}).write(folder)
    return (folder / SPLIT_FILE).read_bytes()


@reader(SPLIT_FILE, _split)
def use_split_file(path: Path) -> None:
    SplitFile.read(path.parent)


LOG = [{"kind": "step", "epoch": 1, "step": i, "total": 2.5, "losses": {"loss_ce": 1.0}} for i in range(4)]


@reader("log.jsonl", "".join(json.dumps(entry) + "\n" for entry in LOG))
def use_run_log(path: Path) -> None:
    assert all(isinstance(entry, dict) for entry in read_log(path))


INFO = ExportInfo(("cup", "urn"), ("r", "f"), 96, 128, False, (96, 128), 1)


@reader("info.json", INFO.to_json())
def use_export_info(path: Path) -> None:
    info = ExportInfo.from_json(path.read_text(encoding="utf-8", errors="surrogateescape"), path)
    info.preprocess([np.zeros((20, 30, 3), np.uint8)])


@functools.cache
def _program() -> bytes:
    class Sums(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat((x, x)))

    rows = torch.export.Dim("rows", min=2, max=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Sums(), (torch.zeros(4, 4),), dynamic_shapes=({0: rows},))
        return _saved(lambda buffer: torch.export.save(program, buffer, extra_files={KEY: INFO.to_json()}))


@reader("model.pt2", lambda _: _program())
def use_pt2(path: Path) -> None:
    Pt2Model(path)


def _graph(folder: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_program())) as archive:
        (folder / "rest.pt2").write_bytes(_program())
        return archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json")))


@reader("graph.json", _graph, cost=0.02)
def use_pt2_graph(path: Path) -> None:
    """With right checksums around it."""
    exported = path.with_name("model.pt2")
    with zipfile.ZipFile(path.with_name("rest.pt2")) as source, zipfile.ZipFile(exported, "w") as target:
        for info in source.infolist():
            content = path.read_bytes() if info.filename.endswith("models/model.json") else source.read(info)
            target.writestr(zipfile.ZipInfo(info.filename), content)
    Pt2Model(exported)


@functools.cache
def _published_content(folder: Path) -> tuple[bytes, bytes]:
    publish_to = folder / "published"
    checkpoint = make_checkpoint(folder / "checkpoint.pth")
    publish(_publish_arguments(checkpoint, publish_to))
    return (publish_to / "model.safetensors").read_bytes(), (publish_to / "config.json").read_bytes()


def _publish_arguments(checkpoint: Path, output: Path) -> Any:
    from tools.publish import parse_arguments

    return parse_arguments([str(checkpoint), "--output", str(output)])


@reader("model.safetensors", lambda folder: _published_content(folder)[0], exact=True, cost=0.02)
def use_published(path: Path) -> Any:
    checkpoint = open_checkpoint(path)
    load_trained(checkpoint, checkpoint_config(checkpoint))
    return {name: tensor.sum().item() for name, tensor in checkpoint.model.items()}


@reader("content.json", lambda folder: _published_content(folder)[1], cost=0.02)
def use_published_content(path: Path) -> None:
    """Beside weights that do not hold it."""
    place = path.parent / "beside"
    place.mkdir(exist_ok=True)
    save_file({"w": torch.ones(2)}, place / "model.safetensors")
    (place / "config.json").write_bytes(path.read_bytes())
    checkpoint_config(open_checkpoint(place))


@functools.cache
def _body() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))


@reader("weights.pth", lambda _: _saved(lambda buffer: torch.save(_body().state_dict(), buffer)))
def use_backbone_weights(path: Path) -> None:
    load_weights(_body(), str(path))


@reader("weights.safetensors", lambda folder: _safetensors(folder))
def use_backbone_safetensors(path: Path) -> None:
    load_weights(_body(), str(path))


def _safetensors(folder: Path) -> bytes:
    save_file(_body().state_dict(), folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


@functools.cache
def _clip() -> torch.nn.Module:
    return tiny_clip()


def _embed(folder: Path) -> list[list[float]]:
    templates = (lambda name: name,)
    return text_embeddings(_clip(), tokenizer(), ["cup", "urn"], folder, templates=templates).tolist()


def _text_cache(folder: Path) -> bytes:
    _embed(folder / "text")
    (file,) = (folder / "text").iterdir()
    return file.read_bytes()


@reader("text.safetensors", _text_cache, exact=True, cost=0.03)
def use_text_cache(path: Path) -> Any:
    folder = path.parent / "text"
    _embed(folder)
    (file,) = folder.iterdir()
    file.write_bytes(path.read_bytes())
    return _embed(folder)


def _library(folder: Path) -> bytes:
    return bytes(range(256)) * 20


@reader("libmsda.so", _library, exact=True)
def use_kernel_library(path: Path) -> Any:
    whole = _library(path.parent)
    kept = path.with_name("kept.so")
    kept.write_bytes(whole)
    compiler._stamp(path).write_text(compiler._checksum(kept))
    return path.read_bytes() == whole if compiler.is_whole(path) else True


@reader("libmsda.so.sha256", "0" * 64 + "\n", exact=True)
def use_kernel_checksum(path: Path) -> Any:
    library = path.with_suffix("")
    library.write_bytes(_library(path.parent))
    right = compiler._checksum(library).encode()
    return not compiler.is_whole(library) or path.read_bytes().strip() == right


@reader("address", "hf://owner/name/model.safetensors@v1.0", readable=False)
def use_hub_address(path: Path) -> None:
    with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
        resolve(path.read_text(encoding="utf-8", errors="replace"))
