"""A `.pt2` file computes and does nothing else; torch.export alone would run what a hostile one asks for."""

import contextlib
import io
import json
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from inference.export.info import KEY, ExportInfo
from inference.export.pt2_content import check_pt2
from inference.load import load_predictor
from util.errors import UserError

INFO = ExportInfo(("cup",), ("r",), 32, 64, False, None, 1)


class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(torch.cat((x, x)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A file with weights, symbolic sizes and a condition on them."""
    rows = torch.export.Dim("rows", min=2, max=9)
    program = torch.export.export(Sums(), (torch.zeros(4, 4),), dynamic_shapes=({0: rows},))
    path = tmp_path_factory.mktemp("export") / "model.pt2"
    torch.export.save(program, path, extra_files={KEY: INFO.to_json()})
    return path


def rewritten(whole: Path, path: Path, changes: dict, extra: dict | None = None) -> Path:
    """A copy. changes: end of a member's name -> content -> content. extra: more members, by inner name."""
    found = set()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        for info in source.infolist():
            content = source.read(info)
            for end, change in changes.items():
                if info.filename.endswith(end):
                    content = change(content)
                    found.add(end)
            target.writestr(zipfile.ZipInfo(info.filename), content)
        root = info.filename.partition("/")[0]
        for name, content in (extra or {}).items():
            target.writestr(zipfile.ZipInfo(f"{root}/{name}"), content)
    assert found == set(changes)
    return path


def in_graph(change):
    """A change of the graph's JSON."""

    def changed(content: bytes) -> bytes:
        graph = json.loads(content)
        change(graph)
        return json.dumps(graph).encode()

    return {"models/model.json": changed}


def first_node(graph: dict) -> dict:
    return graph["graph_module"]["graph"]["nodes"][0]


def with_target(target: str):
    return in_graph(lambda graph: first_node(graph).update(target=target))


def pickled(function, *arguments) -> bytes:
    class Call:
        def __reduce__(self):
            return function, arguments

    buffer = io.BytesIO()
    torch.save((Call(),), buffer)
    return buffer.getvalue()


def with_expression(text: str):
    def change(content: bytes) -> bytes:
        assert b'"expr_str": "' in content
        head, _, rest = content.partition(b'"expr_str": "')
        return head + b'"expr_str": "' + text.encode() + rest[rest.index(b'"') :]

    return {"models/model.json": change}


def with_pickled_weights(content: bytes) -> bytes:
    return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)


def with_an_argument(graph: dict) -> None:
    first_node(graph)["inputs"][0]["name"] = "x=print('ran')"


CALL = "__import__('os').getcwd()"
HOSTILE = {
    "guards": (in_graph(lambda graph: graph.update(guards_code=[CALL])), None, "as 'guards_code'"),
    "expressions": (with_expression(CALL), None, "as 'expr_str'"),
    "attributes": (with_expression("Symbol.mro"), None, "as 'expr_str'"),
    "strings": (with_expression("Symbol('x y')"), None, "as 'expr_str'"),
    "operators": (with_target("torch.hub.load"), None, "as 'target'"),
    "files": (with_target("torch.ops.aten.from_file.default"), None, "as 'target'"),
    "attributes of operators": (with_target("torch.ops.aten.add.Tensor.__class__"), None, "as 'target'"),
    "arguments": (in_graph(with_an_argument), None, "as 'name'"),
    "pickled weights": ({"model_weights_config.json": with_pickled_weights}, None, "has pickled tensors"),
    "pickled inputs": (
        {"sample_inputs/model.pt": lambda _: pickled(print, "ran")},
        None,
        "asks for code in 'data/sample_inputs/model.pt'",
    ),
    "libraries": ({}, {"data/aotinductor/model/x.so": b"\x7fELF"}, "holds 'data/aotinductor/model/x.so'"),
    "objects": ({}, {"data/constants/custom_obj_0": b"x"}, "holds 'data/constants/custom_obj_0'"),
    "two names": ({}, {"models/MODEL.json": b"{}"}, "can be read in two ways"),
    "deep": ({"models/model.json": lambda _: b"[" * 10**5}, None, "cannot be read"),
    "no JSON": ({"models/model.json": lambda _: b"\xff"}, None, "cannot be read"),
}


@pytest.mark.parametrize(("changes", "extra", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_could_run_is_refused(changes, extra, message, whole, tmp_path, capsys):
    path = rewritten(whole, tmp_path / "model.pt2", changes, extra)
    with pytest.raises(UserError, match=r"model\.pt2: ") as caught:
        load_predictor(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out


def test_torch_alone_would_run_it(whole, tmp_path):
    """Otherwise nothing of this were needed."""
    victim = tmp_path / "written"
    path = rewritten(
        whole, tmp_path / "m.pt2", {"sample_inputs/model.pt": lambda _: pickled(Path.touch, victim)}
    )
    with contextlib.suppress(Exception):  # it may well fail, afterwards
        torch.export.load(path)
    assert victim.exists()


def test_a_whole_file_is_taken_and_a_damaged_one_is_not(whole, tmp_path):
    check_pt2(whole)
    check_pt2(rewritten(whole, tmp_path / "copy.pt2", {}))
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        weight = next(info for info in archive.infolist() if info.filename.endswith("weight_0"))
        place = content.index(archive.read(weight))
    content[place + 3] ^= 1
    (tmp_path / "flipped.pt2").write_bytes(content)
    with pytest.raises(UserError, match="does not match its checksum"):
        load_predictor(tmp_path / "flipped.pt2")
    for damaged in (b"", bytes(content[: len(content) // 2]), b"text"):
        (tmp_path / "cut.pt2").write_bytes(damaged)
        with pytest.raises(UserError, match=r"cut\.pt2: "):
            load_predictor(tmp_path / "cut.pt2")
