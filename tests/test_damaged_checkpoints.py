"""Damaged checkpoints, by the hundred: each is refused in one line, or is as good as it was."""

import argparse
import lzma
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from config.command_line import parse_arguments, run_section
from engine.build import build_state
from models.dino.build import build_dino, timm_backbone
from models.richsem.build import build_model
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from models.richsem.official_checkpoint import OfficialCheckpoint
from tests.checkpoint_mutations import mutations
from tests.models.richsem.official_files import official_state
from tests.models.tiny import baseline_config
from util.errors import UserError

STORED = Path(__file__).parent / "compat" / "18081fd" / "checkpoint.pth.xz"
CATEGORIES = {1: "cat", 2: "dog"}


def own_content(folder: Path) -> dict[str, Any]:
    """A small RichSem after an epoch, with an average and the entries that its revision did not have yet."""
    path = folder / "stored.pth"
    path.write_bytes(lzma.decompress(STORED.read_bytes()))
    content = torch.load(path, weights_only=True)
    classes = len(content["class_names"])
    newer = {"iteration": 0, "evaluated": True, "progress": {}}
    lists = {"image_counts": [7] * classes, "frequencies": ["c"] * classes}
    return content | newer | lists | {"early_stopping": {"reference": content["best_ap"], "stale": 0}}


def official_content(folder: Path) -> dict[str, Any]:
    """A small DINO under the release's names, with its options."""
    config = baseline_config(backbone_weights="default")
    model = build_dino(config, 3, backbone=timm_backbone(config, load=False))
    arguments = argparse.Namespace(**config.to_dict(), device="cuda", rank=0)
    return {"model": official_state(model.state_dict(), 2, None), "args": arguments, "epoch": 3}


def use(path: Path) -> None:
    """What evaluation and resuming do with a file, up to the first batch."""
    checkpoint = open_checkpoint(path)
    config = checkpoint_config(checkpoint)
    if isinstance(checkpoint, OfficialCheckpoint):
        load_trained(checkpoint, config, CATEGORIES)
        return
    run_section(parse_arguments(["--resume", str(path), "--output_dir", "x"]), checkpoint.run)
    load_trained(checkpoint, config)
    checkpoint.check_resumable()
    names = list(checkpoint.class_names)
    model = build_model(
        config, names, [1] * len(names), state=checkpoint.model, source=path, training=False
    ).model
    state = build_state(config, model, 10, torch.device("cpu"))
    state.start(checkpoint)


class HangError(BaseException):
    """It took longer than an alarm."""


def outcome(path: Path, seconds: int = 10) -> str:
    """'fine', 'one line', 'several lines', 'hang', or the traceback's last line."""

    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        use(path)
    except UserError as error:
        return "one line" if "\n" not in str(error) else f"several lines: {error!r}"
    except HangError:
        return "hang"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return "fine"


def outcomes(content: dict[str, Any], path: Path, count: int, seed: int) -> list[tuple[str, str]]:
    """What became of each of `count` damaged files, after what was done to it."""
    torch.manual_seed(0)
    torch.save(content, path)
    assert outcome(path) == "fine", "the file is not whole to begin with"
    return [(outcome(path), deed) for deed in mutations(content, path, count, seed)]


@pytest.mark.parametrize("make", [own_content, official_content])
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.ci)])
@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_line_or_harmless(tmp_path, make, count):
    found = outcomes(make(tmp_path), tmp_path / "damaged.pth", count, seed=count)
    wrong = [pair for pair in found if pair[0] not in ("fine", "one line")]
    assert not wrong, "\n".join(map(str, wrong[:20]))
    assert sum(what == "one line" for what, _ in found) > count // 2
