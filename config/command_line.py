"""The command line of `main.py`: the official flags under their official spellings."""

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from config.word_flags import add_word_flags, word_arguments
from util import distributed
from util.errors import UserError, first_line, nearest
from util.signals import end_by_sigterm

DEFAULT_SEED = 42
# `--resume auto`: go on from the checkpoint of --output_dir, or start where it has none.
AUTO = "auto"
MOST_WORKERS = 10
# Seconds that a rank waits before it reports an error that is another's to report.
PATIENCE = 10.0
_UNUSED = "accepted so that official commands run; has no effect here"


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage as a UserError, one line with the nearest right flag."""

    def error(self, message: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = [word for word in message.split() if word.startswith("-") and word not in flags]
        hint = nearest(unknown[0], flags) if unknown else ""
        raise UserError(f"{message}.{hint} See python main.py --help")


def build_parser() -> argparse.ArgumentParser:
    """All flags. A test freezes the list: new settings belong in the config."""
    parser = _Parser(
        prog="main.py",
        description="Train or evaluate a detector.",
        epilog="`--eval --resume CKPT` needs nothing else: a checkpoint carries its config and data path.",
        allow_abbrev=False,
    )
    _add_what(parser.add_argument_group("what to do"))
    _add_data(parser.add_argument_group("config and data"))
    _add_weights(parser.add_argument_group("weights"))
    add_word_flags(parser.add_argument_group("vocabulary, for --eval and --test"))
    _add_machine(parser.add_argument_group("machine"))
    _add_official(parser.add_argument_group("official flags without effect"))
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the flags and checks what needs no file. Raises UserError."""
    args = build_parser().parse_args(argv)
    if not (args.config_file or args.resume):
        raise UserError("no config: name one with -c, or a checkpoint with --resume")
    if args.eval and args.test:
        raise UserError(
            "--eval and --test are mutually exclusive: --test writes predictions without scoring them"
        )
    if args.resume == AUTO and (args.eval or args.test):
        raise UserError("--resume auto goes on with training: --eval and --test need the checkpoint's name")
    if args.resume and args.resume != AUTO and args.pretrain_model_path:
        raise UserError("--resume continues a run, --pretrain_model_path starts a new one: give one of them")
    if (args.finetune_ignore or args.finetune_ignore_all) and not args.pretrain_model_path:
        raise UserError("--finetune_ignore needs --pretrain_model_path")
    if (args.eval or args.test) and not args.resume:
        raise UserError("--eval and --test need a checkpoint: name it with --resume")
    asked = [f"--{name}" for name, value in word_arguments(args).items() if value]
    if asked and not (args.eval or args.test):
        raise UserError(f"{asked[0]} asks a trained model for other words: it needs --eval or --test")
    if (args.test or args.save_results) and not args.output_dir:
        raise UserError("--test and --save_results write predictions: name a folder with --output_dir")
    if args.num_workers is not None and args.num_workers < 0:
        raise UserError(f"--num_workers {args.num_workers}: must be 0 or more")
    if not 0 < args.timeout < float("inf"):
        raise UserError(f"--timeout {args.timeout:g}: must be a number of minutes above 0")
    if args.time_limit is not None and not args.time_limit > 0:
        raise UserError(f"--time_limit {args.time_limit}: must be more than 0 minutes")
    if args.start_epoch is not None and args.start_epoch < 0:
        raise UserError(f"--start_epoch {args.start_epoch}: must be 0 or more")
    if not (args.eval or args.test or args.output_dir):
        raise UserError("training needs --output_dir, a new folder for the log and the checkpoints")
    return args


def run_section(args: argparse.Namespace, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that a checkpoint keeps, so that its evaluation needs none of them.

    saved: the same section of the checkpoint that is read; a flag overrides it.
    Raises UserError when neither names the data.
    """
    if not (args.data_path or saved.get("data_path")):
        raise UserError("no data: name its folder with --data_path")
    return {
        "data_path": _absolute(args.data_path) if args.data_path else saved["data_path"],
        "dataset_file": args.dataset_file or saved.get("dataset_file", "lvis"),
        "seed": args.seed if args.seed is not None else saved.get("seed", DEFAULT_SEED),
        "fix_size": args.fix_size or saved.get("fix_size", False),
        **{key: saved[key] for key in ("sets",) if key in saved},
    }


def _absolute(paths: list[str]) -> str | list[str]:
    """As checkpoints keep them: a string for one path, a list for several."""
    absolute = [str(Path(path).resolve()) for path in paths]
    return absolute[0] if len(absolute) == 1 else absolute


def process_section(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What this process is: rank, number of ranks, loader processes, pinned memory."""
    return {
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
        "num_workers": _worker_count(args),
        "ranks_here": distributed.ranks_here(),
        "pin_memory": device.type == "cuda",
        "allow_outside": args.allow_outside,
    }


def _worker_count(args: argparse.Namespace) -> int:
    """--num_workers, else the official 10, or fewer on few cores."""
    if args.num_workers is not None:
        return args.num_workers
    return max(1, min(MOST_WORKERS, distributed.available_cores() // distributed.ranks_here()))


def report(error: Exception, sigterm_came: bool = False) -> int:
    """Prints one line to standard error and returns the exit status.

    error: a UserError, or that of a rank that lost another (`distributed.lost_peer`).
    sigterm_came: whether SIGTERM was noted before, and no step came at which to stop.
    """
    lost = not isinstance(error, UserError)
    if lost or not distributed.is_main():
        # The rank with the cause, or rank 0 with the same error, speaks; the launcher then ends this process,
        # or wanted to before this one had its error.
        if sigterm_came:
            end_by_sigterm()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(PATIENCE)
    what = f"rank {distributed.rank()} lost another rank: {first_line(error)}" if lost else str(error)
    print(f"error: {what}", file=sys.stderr, flush=True)
    return 1 if lost else 2


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--eval", action="store_true", help="evaluate and print the LVIS metrics")
    group.add_argument(
        "--test", action="store_true", help="write predictions as JSON; the images need no annotations"
    )
    group.add_argument("--debug", action="store_true", help="stop each epoch and evaluation after 15 batches")
    group.add_argument("--output_dir", default="", help="folder of the run; must be new for a new run")
    group.add_argument(
        "--time_limit",
        type=float,
        metavar="MINUTES",
        help="stop training after so many minutes with a checkpoint; --resume auto goes on",
    )
    group.add_argument("--note", default="", help="a note stored in the checkpoints")
    group.add_argument("--seed", type=int, help="random seed (default: 42, or the checkpoint's)")
    group.add_argument(
        "--save_results", action="store_true", help="with --eval: keep the predictions as JSON too"
    )


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-c", "--config_file", default="", help="config file (Python)")
    group.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="override settings of the config"
    )
    group.add_argument(
        "--dataset_file",
        choices=("lvis", "lvis_openvocab", "coco"),
        help="kind of data (default: lvis, or the checkpoint's)",
    )
    group.add_argument(
        "--data_path",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folder of the data, or of each of several data sets (default: the checkpoint's)",
    )
    group.add_argument(
        "--allow_outside",
        action="store_true",
        help="read images that names or links in the data place outside of its folder",
    )
    group.add_argument("--fix_size", action="store_true", help="all images at the largest configured size")
    group.add_argument("--num_workers", type=int, help="loader processes per rank (default: up to 10)")


def _add_weights(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--resume", default="", help="checkpoint to continue, evaluate or test; auto: that of --output_dir"
    )
    group.add_argument(
        "--start_epoch", type=int, help="epochs to count as done (default: 0, or the checkpoint's)"
    )
    group.add_argument(
        "--pretrain_model_path", default="", help="checkpoint to start from: what fits is loaded"
    )
    group.add_argument(
        "--finetune_ignore",
        nargs="+",
        default=[],
        metavar="WORD",
        help="skip tensors named with a WORD",
    )
    group.add_argument(
        "--finetune_ignore_all",
        action="store_true",
        help="skip tensors that do not fit (always on; official spelling)",
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    group.add_argument(
        "--timeout",
        type=float,
        default=distributed.TIMEOUT.total_seconds() / 60,
        metavar="MINUTES",
        help="after which a process that does not answer is named, and the run ends (default: 30)",
    )
    group.add_argument("--amp", action="store_true", help="mixed precision in the config's amp_dtype")
    group.add_argument("--local_rank", "--local-rank", type=int, help="set by old launchers; LOCAL_RANK wins")


def _add_official(group: argparse._ArgumentGroup) -> None:
    for flag in ("--world_size", "--rank"):
        group.add_argument(flag, type=int, help=f"{_UNUSED}: torchrun's environment decides")
    group.add_argument("--dist_url", default="env://", help=f"{_UNUSED}: torchrun's environment decides")
    group.add_argument(
        "--find_unused_params", action="store_true", help=f"{_UNUSED}: unused parameters never block"
    )
    group.add_argument("--save_log", action="store_true", help=f"{_UNUSED}: the log is always kept")
    group.add_argument("--remove_difficult", action="store_true", help=_UNUSED)
    group.add_argument("--coco_panoptic_path", default="", help=_UNUSED)
