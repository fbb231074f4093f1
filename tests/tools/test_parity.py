"""The tool on a text case of its own making, and on a whole model case where the fixtures are."""

import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.richsem.text_embeddings import PROMPTS
from tests.fixtures import require_fixture
from tests.models.richsem.official_files import openai_clip
from tools import parity
from util.errors import run_command

MODEL_CASE = "dino_r50"  # the cheapest: one image, no CLIP

# Any rule will do, as long as weights are a function of names and shapes.
SYNTH = """
import zlib
import torch

def synth_tensor(name, shape):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    tensor = torch.randn(tuple(shape), generator=generator)
    return tensor.abs() + 0.5 if name.endswith("running_var") else 0.3 * tensor

def synth_state_dict(manifest):
    return {name: synth_tensor(name, shape) for name, shape in manifest.items()}
"""


def run(*arguments) -> int:
    return run_command(lambda: parity.main([str(argument) for argument in arguments]))


@pytest.fixture
def text_case(tmp_path) -> Path:
    """PREFIX of a text case whose embeddings open_clip computed, one prompt at a time."""
    manifest = {f"class_embed.clip.{k}": list(v.shape) for k, v in openai_clip().state_dict().items()}
    (tmp_path / "synth.py").write_text(SYNTH)
    (tmp_path / "richsem_r50.manifest.json").write_text(json.dumps(manifest))
    categories = {"1": {"name": "tin_can"}, "3": {"name": "oar"}}
    (tmp_path / "text_embed.json").write_text(json.dumps({"categories": categories}))
    clip = openai_clip()
    state = parity.load_synth(tmp_path / "synth.py").synth_state_dict(manifest)
    clip.load_state_dict({k.removeprefix("class_embed.clip."): v for k, v in state.items()})
    tokenizer, rows = open_clip.get_tokenizer("RN50"), []
    with torch.no_grad():
        for name in ("none", "tin_can", "none", "oar"):
            prompts = [name] if name == "none" else [prompt(name) for prompt in PROMPTS]
            rows.append(torch.stack([clip.double().encode_text(tokenizer([p]))[0] for p in prompts]).mean(0))
    save_file({"text_embed": torch.stack(rows).float()}, tmp_path / "text_embed.safetensors")
    return tmp_path / "text_embed"


def test_a_text_case_passes(text_case, capsys):
    assert run(text_case) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 passed, 0 failed"
    assert "text_embed[1] tin_can" in lines[2]


def test_one_changed_number_fails(text_case, capsys):
    path = text_case.with_suffix(".safetensors")
    rows = load_file(path)["text_embed"]
    rows[3, 5] += 1e-4
    save_file({"text_embed": rows}, path)
    assert run(text_case) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "3 passed, 1 failed"
    assert next(line for line in lines if line.startswith("FAIL")).split()[1:3] == ["text_embed[3]", "oar"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_fails(value, text_case):
    path = text_case.with_suffix(".safetensors")
    rows = load_file(path)["text_embed"]
    rows[0, 0] = value
    save_file({"text_embed": rows}, path)
    assert run(text_case) == 1


def test_nothing_compared_fails(text_case, capsys):
    save_file({}, text_case.with_suffix(".safetensors"))
    assert run(text_case) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed"


def test_other_places_for_synth_and_manifest(text_case, tmp_path, capsys):
    for name, flag in (("synth.py", "--synth"), ("richsem_r50.manifest.json", "--manifest")):
        moved = shutil.move(tmp_path / name, tmp_path / f"moved_{name}")
        if flag == "--synth":
            assert run(text_case) == 2
            assert "synth.py does not exist" in capsys.readouterr().err
            synth = moved
        else:
            assert run(text_case, "--synth", synth) == 2
            assert "richsem_r50.manifest.json: no such file" in capsys.readouterr().err
            assert run(text_case, "--synth", synth, "--manifest", moved) == 0


def test_a_case_that_is_not_there(text_case, capsys):
    (text_case.parent / "text_embed.json").unlink()
    assert run(text_case) == 2
    error = capsys.readouterr().err
    assert "text_embed.json: no such file" in error and "Traceback" not in error


def copied_case(name: str, folder: Path) -> Path:
    """PREFIX of a writable copy of a stored case."""
    for kind in ("json", "safetensors", "manifest.json"):
        shutil.copyfile(require_fixture(f"parity/{name}.{kind}"), folder / f"{name}.{kind}")
    return folder / name


@pytest.mark.ci
def test_a_case_may_lack_the_teachers_targets_and_nothing_else(tmp_path, capsys):
    prefix = copied_case("richsem_r50_l1_aux", tmp_path)
    tensors = load_file(f"{prefix}.safetensors")
    absent = sorted(name for name in tensors if name.startswith("teacher_"))
    assert absent == ["teacher_embed_0", "teacher_logits_0"]
    del tensors["interm_top_logits"], tensors["scores_0"]
    save_file({k: v for k, v in tensors.items() if k not in absent}, f"{prefix}.safetensors")
    case = json.loads(Path(f"{prefix}.json").read_text())
    del case["losses"]["loss_ce_dn"], case["grad_norms"]["transformer.level_embed"], case["total"]
    Path(f"{prefix}.json").write_text(json.dumps(case))
    # float32 is enough to see which rows there are; their errors are not looked at.
    assert run(prefix, "--synth", require_fixture("parity/synth.py"), "--dtype", "float32") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "not compared" in line] == absent
    missing = {line.split("worst")[0].split(maxsplit=1)[1].strip() for line in lines if "missing in" in line}
    assert missing == {
        f"{name} (missing in the case)"
        for name in (
            "interm_top_logits", "scores_0", "loss_ce_dn", "total", "gradient of encoder.level_embed"
        )
    }  # fmt: skip


def test_a_model_case_agrees_but_for_what_was_changed(tmp_path, capsys):
    """Two numbers of a copy are changed: those two rows fail, and only those."""
    prefix = copied_case(MODEL_CASE, tmp_path)
    case = json.loads(Path(f"{prefix}.json").read_text())
    case["losses"]["loss_giou_dn_3"] *= 1 + 1e-4
    Path(f"{prefix}.json").write_text(json.dumps(case))
    tensors = load_file(f"{prefix}.safetensors")
    tensors["pred_boxes"][0, 7, 2] += 1e-4
    save_file(tensors, f"{prefix}.safetensors")
    assert run(prefix, "--synth", require_fixture("parity/synth.py")) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = {line.split()[1] for line in lines if line.startswith("FAIL")}
    assert failed == {"loss_giou_dn_3", "pred_boxes"}
    passed, two = map(int, re.fullmatch(r"(\d+) passed, (\d+) failed", lines[-1]).groups())
    assert two == 2 and passed > 300
    compared = {line.split()[1] for line in lines if line.startswith(("ok", "FAIL"))}
    assert set(case["losses"]) <= compared and set(tensors) <= compared
