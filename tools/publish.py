"""Makes a folder of a checkpoint that others can use, and pushes it to the Hugging Face Hub.

python tools/publish.py CKPT --output FOLDER [--dataset NAME] [--license ID] [--data_license TEXT]
python tools/publish.py FOLDER --push OWNER/NAME

FOLDER gets `model.safetensors` (the weights that training evaluated, without optimizer, with config and class
names inside), `config.json` (a readable copy of these) and `README.md`, the model card. Metrics are those of
the run's log for this epoch, or of `--eval`, the output folder of `main.py --eval`. Read the card before you
push it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from config import Config
from datasets.annotations.categories import Category
from datasets.annotations.frequency import group_of
from datasets.annotations.json_errors import load_json
from datasets.annotations.json_schema import typed_categories
from engine.run_log import read_log
from models.richsem.load import TrainedModel, checkpoint_config, load_trained, open_checkpoint
from models.richsem.official_checkpoint import OfficialCheckpoint
from tools.model_card import Facts, is_of_the_checkout, model_card, set_address, text_tower_file
from util.checkpoint import Checkpoint, is_published, save_published
from util.errors import UserError, nearest, run_command
from util.files import atomic_write
from util.hub import CONTENT, WEIGHTS, asking
from util.optional import require

CARD = "README.md"


def publish(args: argparse.Namespace) -> list[str]:
    """Writes the folder. Returns what the user should know of it, a line each.

    Raises UserError where the folder is in use, and where the checkpoint cannot be used as it is.
    """
    folder: Path = args.output
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; name a new folder with --output")
    checkpoint = open_checkpoint(args.checkpoint)
    config = checkpoint_config(checkpoint)
    categories = typed_categories(args.annotations)
    trained = load_trained(checkpoint, config, {c.id: c.name for c in categories} or None)
    weights = checkpoint.evaluated_weights
    if isinstance(checkpoint, OfficialCheckpoint):
        weights = trained.model.state_dict()
    metrics, source = read_metrics(args.eval, checkpoint)
    content = {
        **classes(checkpoint, trained, categories),
        "config": portable_config(config),
        "run": {key: value for key, value in checkpoint.run.items() if key != "data_path"},
        "note": checkpoint.note,
        "epoch": checkpoint.epoch,
        "best_ap": checkpoint.best_ap,
        "metrics": metrics,
        "dataset": args.dataset,
        "license": args.license,
        "data_license": args.data_license,
    }
    facts = Facts(
        name=args.push.partition("/")[2] if args.push else folder.resolve().name,
        config=Config.from_dict(content["config"]),
        class_names=content["class_names"],
        frequencies=content["frequencies"],
        image_counts=content["image_counts"],
        parameters=sum(p.numel() for p in trained.model.parameters()),
        epoch=checkpoint.epoch,
        note=checkpoint.note,
        metrics=metrics,
        official=isinstance(checkpoint, OfficialCheckpoint),
        dataset=args.dataset,
        license=args.license,
        data_license=args.data_license,
    )
    card = model_card(facts)
    save_published(folder, weights, content)
    with atomic_write(folder / CARD) as file:
        file.write(card)
    return [
        f"{folder / WEIGHTS}: {sum(1 for name in content['class_names'] if name)} classes, "
        f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB",
        f"metrics: {source}",
        *missing_facts(args, config),
    ]


def missing_facts(args: argparse.Namespace, config: Config) -> list[str]:
    """What the card cannot say, and what readers of the model will not have."""
    lines = [
        f"the card states no {what}: give it with {flag}"
        for what, flag, value in (
            ("licence of the weights", "--license", args.license),
            ("licence of the data", "--data_license", args.data_license),
            ("name of the data", "--dataset", args.dataset),
        )
        if not value
    ]
    tower = text_tower_file(config)
    if tower and not is_of_the_checkout(tower):
        lines.append(
            f"new class names (--names) need the text tower {tower}, which is not in the folder; the model's "
            "own classes do not"
        )
    return lines


def classes(
    checkpoint: Checkpoint, trained: TrainedModel, categories: Sequence[Category]
) -> dict[str, list[Any]]:
    """Names, training images and frequency of each class column: of the checkpoint, else of the annotations.

    A column of an official model that is no class gets the name ''.
    Raises UserError where the annotations have no class of the model.
    """
    by_name = {c.name: c for c in categories}
    names = list(trained.class_names)
    known = [by_name.get(name) for name in names]
    if categories and not any(known):
        hint = nearest(next(filter(None, names)), by_name)
        raise UserError(f"--annotations: no category is a class of the model, such as {names[-1]!r}.{hint}")
    if isinstance(checkpoint, OfficialCheckpoint):
        names = [name if category else "" for name, category in zip(names, known, strict=True)]
    counts, frequencies = list(checkpoint.image_counts), list(checkpoint.frequencies)
    if not counts and all(c is None or c.image_count is not None for c in known) and any(known):
        counts = [(c.image_count or 0) if c else 0 for c in known]
    if not frequencies and any(known):
        frequencies = [c.frequency if c else "" for c in known]
    if counts:
        said = zip(frequencies or [""] * len(counts), counts, names, strict=True)
        frequencies = [group_of(frequency, count) if name else "" for frequency, count, name in said]
    return {"class_names": names, "image_counts": counts, "frequencies": frequencies}


def portable_config(config: Config) -> dict[str, Any]:
    """The config without this machine's folders: of an absolute path only the last name is kept."""
    values = {**config.to_dict(), "text_cache_dir": ""}
    return {key: _last_name(value) if isinstance(value, str) else value for key, value in values.items()}


def _last_name(value: str) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name
    return value


def read_metrics(folder: Path | None, checkpoint: Checkpoint) -> tuple[dict[str, float], str]:
    """The metrics of the checkpoint's weights, and in words where they are from; {} where none are known.

    folder: an output folder of `main.py --eval`; None for the log beside the checkpoint.
    Raises UserError for a folder without metrics, and a damaged file.
    """
    if folder is not None:
        for path in (folder / "eval" / "metrics.json", folder / "metrics.json"):
            if path.is_file():
                return _checked(load_json(path), path), str(path)
        raise UserError(f"{folder}: has no eval/metrics.json; name the --output_dir of main.py --eval")
    log = checkpoint.path.parent / "log.jsonl"
    if not log.is_file():
        return {}, f"none: there is no {log}; give those of main.py --eval with --eval FOLDER"
    found: dict[str, float] = {}
    for entry in read_log(log):
        if entry.get("kind") == "epoch" and entry.get("epoch") == checkpoint.epoch:
            found = _checked(entry.get("metrics") or {}, log)
    if found:
        return found, f"{log}, epoch {checkpoint.epoch}"
    return (
        {},
        f"none: {log} has none of epoch {checkpoint.epoch}; give those of main.py --eval with --eval FOLDER",
    )


def _checked(metrics: Any, source: Path) -> dict[str, float]:
    if not isinstance(metrics, dict) or not all(type(v) in (int, float) for v in metrics.values()):
        raise UserError(f"{source}: its metrics are no numbers by name")
    return metrics


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Uploads a published folder to OWNER/NAME, which is made where it is not there. Returns its address.

    Raises UserError, one line, for whatever the Hub refuses.
    """
    missing = [name for name in (WEIGHTS, CONTENT, CARD) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: has no {missing[0]}; make the folder with --output")
    hub = require("huggingface_hub", "hub")
    if hub.get_token() is None:
        raise UserError(f"hf://{repo}: you are not logged in: run `hf auth login`, or set HF_TOKEN")
    card = (folder / CARD).read_text(encoding="utf-8")
    if set_address(card, repo) != card:
        with atomic_write(folder / CARD) as file:
            file.write(set_address(card, repo))
    with asking(repo) as hub:
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        # One commit: nobody sees a part of it. The Hub checks the card's metadata first.
        files = [hub.CommitOperationAdd(name, folder / name) for name in (CARD, CONTENT, WEIGHTS)]
        api.create_commit(repo, files, commit_message="Weights, config and model card")
    return f"hf://{repo}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="a checkpoint; with --push alone, a published folder")
    parser.add_argument("--output", type=Path, help="folder to write, new or empty")
    parser.add_argument("--push", metavar="OWNER/NAME", help="repository of the Hub to upload to")
    parser.add_argument("--private", action="store_true", help="with --push: make a new repository private")
    parser.add_argument("--eval", type=Path, help="output folder of main.py --eval with the metrics")
    parser.add_argument("--dataset", default="", help="name of the data, such as 'LVIS v1'")
    parser.add_argument(
        "--license", default="", help="licence of the weights, as the Hub spells it: apache-2.0"
    )
    parser.add_argument("--data_license", default="", help="licence of the training data")
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file: class names of an official checkpoint, class counts"
    )
    args = parser.parse_args(arguments)
    if args.push and (args.push.count("/") != 1 or not all(args.push.split("/"))):
        raise UserError(f"--push {args.push}: the form is OWNER/NAME")
    if not args.output and not args.push:
        raise UserError("nothing to do: name a folder with --output, a repository with --push, or both")
    if not args.output and not is_published(args.checkpoint):
        raise UserError(f"{args.checkpoint}: is no published folder; make one with --output FOLDER")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Writes and pushes as asked."""
    args = parse_arguments(arguments)
    folder: Path = args.output or args.checkpoint
    if args.output:
        print("\n".join(publish(args)))
    if args.push:
        folder = folder.parent if folder.suffix == ".safetensors" else folder
        print(f"pushed: {push(folder, args.push, private=args.private)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
