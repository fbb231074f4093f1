"""Train or evaluate a detector: command line -> config -> parts -> engine. See `python main.py --help`."""

import gc
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from util.signals import SignalStop, end_at_once, stopped_by

if __name__ == "__main__":
    # The imports below take seconds.
    end_at_once()
# Idle OpenMP threads sleep instead of spinning. Must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from config import Config, dump, load, parse_options
from config.command_line import AUTO, parse_arguments, process_section, report, run_section
from config.word_flags import word_arguments
from datasets.annotations.categories import ClassTable
from datasets.annotations.split_file import SPLIT_FILE, SplitFile
from datasets.build import DataParts, RunSettings, build_datasets
from datasets.evaluation.evaluator import BoxEvaluator, name_undefined
from engine.batch_size import choose_batch_size, learning_rate_rule
from engine.build import build_settings, build_state, wrap_distributed
from engine.device import use_tf32
from engine.dry_run import make_forecast
from engine.evaluate import evaluate, report_metrics
from engine.fit import Validation, fit
from engine.pretrained import load_pretrained
from engine.random_state import seed_everything
from engine.run_directory import Contents, RunDirectory, evaluation_folder
from engine.settings import TrainSettings
from engine.state import TrainingState
from engine.stopping import Stopping
from engine.trackers import import_trackers
from engine.train_epoch import Task
from inference.torch_model import class_frequencies
from inference.vocabulary import WordRequest, ask, names_in
from models.dino.detector import Detector
from models.richsem.build import ModelParts, build_model
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from models.richsem.naming import check_sides
from util import distributed
from util.checkpoint import Checkpoint, check_class_names
from util.console import prepare_console
from util.errors import UserError
from util.logging import get_logger, setup_logging

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What was asked for.

    checkpoint: of --resume.  run: flags that checkpoints keep.
    folder: of --output_dir.  seen: what it held before the checkpoint was read.
    stopping: handles signals, and the time limit.
    """

    args: Namespace
    config: Config
    checkpoint: Checkpoint | None
    run: dict[str, Any]
    data: RunSettings
    device: torch.device
    folder: RunDirectory
    seen: Contents
    stopping: Stopping


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 after an error that the user can fix, or that of a signal."""
    prepare_console()
    with Stopping() as stopping:
        try:
            return run(argv, stopping)
        except KeyboardInterrupt as stop:
            return stopped_by(stop.number if isinstance(stop, SignalStop) else signal.SIGINT)


def run(argv: list[str] | None, stopping: Stopping) -> int:
    """`main`, with signals handled. Raises KeyboardInterrupt where one stops it at once."""
    try:
        args = parse_arguments(argv)
        device = distributed.setup(args.device, args.local_rank, timedelta(minutes=args.timeout))
        setup_logging(distributed.rank())
        folder = RunDirectory(Path(args.output_dir))
        seen = folder.contents()
        checkpoint = find_checkpoint(args, folder)
        section = run_section(args, checkpoint.run if checkpoint else {})
        seed_everything(section["seed"], distributed.rank())
        config = choose_config(args, checkpoint)
        use_tf32(config.tf32)
        split = find_split(args, config, folder, checkpoint)
        data = RunSettings(**section, **process_section(args, device), split=split)
        stopping.limit(args.time_limit)
        job = Job(args, config, checkpoint, section, data, device, folder, seen, stopping)
        status = (run_evaluation if args.eval or args.test else train)(job)
    except UserError as error:
        return report(error, stopping.noted(signal.SIGTERM))
    except RuntimeError as error:
        if not distributed.lost_peer(error):
            raise
        return report(error, stopping.noted(signal.SIGTERM))
    distributed.shutdown()
    return status


def find_checkpoint(args: Namespace, folder: RunDirectory) -> Checkpoint | None:
    """That of --resume. With `auto` it becomes the path of the checkpoint that was found, or empty.

    The flags of a start (--pretrain_model_path, --start_epoch) are then dropped where training goes on.
    """
    if args.resume != AUTO:
        return open_checkpoint(args.resume) if args.resume else None
    checkpoint = folder.newest_checkpoint(open_checkpoint)
    args.resume = str(checkpoint.path) if checkpoint else ""
    if checkpoint is not None:
        args.pretrain_model_path, args.start_epoch = "", None
    return checkpoint


def choose_config(args: Namespace, checkpoint: Checkpoint | None) -> Config:
    """The named config, else the checkpoint's; flags and --options on top."""
    overrides = parse_options(args.options) | ({"amp": True} if args.amp else {})
    if args.config_file:
        return load(args.config_file, overrides)
    if checkpoint is None:
        raise UserError(f"{args.output_dir} has no checkpoint to go on from: name a config with -c")
    return checkpoint_config(checkpoint, overrides)


def find_split(
    args: Namespace, config: Config, folder: RunDirectory, checkpoint: Checkpoint | None
) -> SplitFile | None:
    """What the run has divided before; None for a new one. An evaluation looks beside the checkpoint."""
    evaluates = args.eval or args.test
    folders = [] if evaluates else [folder.path]
    folders += [Path(checkpoint.path).parent] if checkpoint else []
    found = next((split for path in folders if config.val_share and (split := SplitFile.read(path))), None)
    if evaluates and config.val_share and found is None:
        _log.warning(
            "%s is not beside %s: the data is divided again, alike only if its images are those of training",
            SPLIT_FILE, args.resume,
        )  # fmt: skip
    return found


def train(job: Job) -> int:
    """A new run, or the rest of one. Returns the exit status."""
    folder, config = job.folder, job.config
    if job.checkpoint is not None:
        job.checkpoint.check_resumable()
    distributed.on_main(lambda: import_trackers(config.tracker, folder.path))
    if config.dry_run:
        return build_and_train(with_batch_size(job))
    with folder.training(job.args.resume, job.seen):
        setup_logging(distributed.rank(), folder.text_log)
        return build_and_train(with_batch_size(job))


def with_batch_size(job: Job) -> Job:
    """The same with a number for batch_size='auto': the checkpoint's, else the largest that fits."""
    config = job.config
    if config.batch_size != AUTO:
        return job
    if job.checkpoint is not None:
        number = checkpoint_config(job.checkpoint).batch_size
        return replace(job, config=replace(config, batch_size=number))
    number, line = try_batch_sizes(job)
    # The optimizer and its schedule hold each other.
    gc.collect()
    seed_everything(job.run["seed"], distributed.rank())
    if distributed.is_main():
        get_logger().info("%s", line)
        images = number * distributed.world_size() * config.accumulate_steps
        get_logger().info("%s", learning_rate_rule(images, config.lr))
    return replace(job, config=replace(config, batch_size=number))


def try_batch_sizes(job: Job) -> tuple[int, str]:
    """Images per process, and a line for people. The parts of the trial are made again for the run itself."""
    config, device, data = job.config, job.device, build_datasets(job.config, job.data)
    assert data.train_loader is not None and data.worst_batch is not None
    classes = data.classes
    parts = build_model(config, classes.names, classes.image_counts, device, load_backbone=False)
    return choose_batch_size(
        Task(parts.model, parts.criterion, parts.teacher),
        build_state(config, parts.model, len(data.train_loader), device),
        data.worst_batch,
        replace(build_settings(config, device), on_nonfinite="stop"),
        most=data.train_images // distributed.world_size(),
        ranks_here=job.data.ranks_here,
    )


def build_and_train(job: Job) -> int:
    """The parts of a run, and the loop; with dry_run a forecast instead. Returns the exit status."""
    args, config, device, checkpoint, run = job.args, job.config, job.device, job.checkpoint, job.folder
    data = build_datasets(config, job.data)
    assert data.train_loader is not None
    name_undefined(data.val_annotations)
    names = data.classes.names
    if checkpoint is not None:
        check_class_names(checkpoint.class_names, names, args.resume)
        name_changes(job, checkpoint)
    parts = build_model(
        config,
        class_names=names,
        image_counts=data.classes.image_counts,
        device=device,
        state=checkpoint.model if checkpoint else None,
        source=args.resume,
        # Otherwise the file of --pretrain_model_path brings the backbone.
        load_backbone=not args.pretrain_model_path or bool(args.finetune_ignore),
    )
    if args.pretrain_model_path:
        start_from(open_checkpoint(args.pretrain_model_path), parts.model, names, args.finetune_ignore)
    if checkpoint is None and not config.dry_run:
        distributed.on_main(partial(look_at_teacher, config, parts, data, device))
    settings = build_settings(config, device, args.debug, len(data.train_loader))
    state = build_state(config, parts.model, settings.iterations(len(data.train_loader)), device)
    state.start(checkpoint, args.start_epoch)
    if checkpoint is not None:
        state.report_changes(checkpoint, config.to_dict())
    if not config.dry_run:
        distributed.on_main(lambda: run.describe(dump(config), parts.model, data.union_table))
        write_split(data, run.path)
    validation = Validation(
        data.val_loader, parts.postprocess, partial(make_evaluator, config, data, data.classes, run.path)
    )
    identity = {
        "class_names": names,
        "image_counts": data.classes.image_counts,
        "frequencies": data.classes.frequencies,
        "config": config.to_dict(),
        "run": job.run | ({"sets": data.sets} if data.sets else {}),
        "note": args.note or (checkpoint.note if checkpoint else ""),
    }
    task = Task(wrap_distributed(parts.model, device), parts.criterion, parts.teacher)
    if config.dry_run:
        forecast_run(job, task, state, data, validation, settings)
        return 0
    return fit(task, state, data.train_loader, validation, settings, run, identity, job.stopping)


def start_from(source: Checkpoint, model: Detector, names: Sequence[str], ignored: Sequence[str]) -> None:
    """--pretrain_model_path, without what --finetune_ignore names.  names: the classes of `model`."""
    wanted = {name for name in source.evaluated_weights if not any(word in name for word in ignored)}
    model.backbone.take_pixels_of(wanted)
    load_pretrained(model, source, names, ignored)


def look_at_teacher(config: Config, parts: ModelParts, data: DataParts, device: torch.device) -> None:
    """check_teacher: raises UserError where the teacher names image-level images worse than chance."""
    if config.check_teacher and parts.teacher is not None and data.labelled is not None:
        pair = f"clip_model={config.clip_model!r} with clip_pretrained={config.clip_pretrained!r}"
        batches = data.labelled.batches(most=64, per_class=4)
        classifier: Any = parts.model.head.classifier
        check_sides(parts.teacher, classifier.text, batches, device, pair)


def write_split(data: DataParts, folder: Path) -> None:
    """Writes which images are for validation, where data with one split was divided."""
    if data.split is not None:
        distributed.on_main(partial(data.split.write, folder))


def name_changes(job: Job, checkpoint: Checkpoint) -> None:
    """Logs what is no longer as the checkpoint has it: config keys, data and seed. The new values count."""
    before = {**checkpoint_config(checkpoint).to_dict(), **checkpoint.run}
    after = {**job.config.to_dict(), **job.run}
    changed = [f"{k} {before.get(k)!r} -> {v!r}" for k, v in after.items() if before.get(k) != v]
    if changed and distributed.is_main():
        _log.warning("changed since %s: %s", checkpoint.path, ", ".join(changed))


def forecast_run(
    job: Job,
    task: Task,
    state: TrainingState,
    data: DataParts,
    validation: Validation,
    settings: TrainSettings,
) -> None:
    """dry_run: prints what the run would take."""
    assert data.train_loader is not None and data.worst_batch is not None
    # torch's loaders keep two batches ready in each process.
    ready = 2 * job.data.num_workers
    forecast = make_forecast(
        task, state, data.train_loader, data.worst_batch(), validation, settings, prefetched=ready
    )
    if distributed.is_main():
        print(f"dry run: nothing was written\n{forecast.table()}", flush=True)


def run_evaluation(job: Job) -> int:
    """--eval: the metrics of a checkpoint (LVIS's, or COCO's). --test: its predictions only."""
    if job.config.dry_run:
        raise UserError("dry_run=True forecasts a training run: leave out --eval and --test")
    assert job.checkpoint is not None  # the command line asks for one
    args, checkpoint = job.args, job.checkpoint
    request = WordRequest(**word_arguments(args))
    # The words decide about the classes, not the config of training.
    data = build_datasets(
        replace(job.config, num_classes=0) if request else job.config,
        job.data,
        train=False,
        trained=checkpoint.class_names,
    )
    name_undefined(data.val_annotations)
    categories = data.val_annotations.categories
    trained = load_trained(checkpoint, job.config, {c.id: c.name for c in categories}, job.device)
    trained = ask(trained, checkpoint, job.config, request, categories)
    names = names_in(categories, trained.class_names) if request else trained.class_names
    frequencies = class_frequencies(checkpoint, trained.columns)
    classes = replace(ClassTable.from_categories(categories, names), frequencies=frequencies)
    if known := checkpoint.image_counts:
        counts = tuple(known[column] if column >= 0 else 0 for column in trained.columns)
        classes = replace(classes, image_counts=counts)
    data = data.as_trained(classes, counted=bool(known))
    settings = build_settings(job.config, job.device, job.args.debug)
    with evaluation_folder(job.args.output_dir) as folder:
        write_split(data, folder)
        evaluator = make_evaluator(job.config, data, classes, folder)
        metrics = evaluate(trained.model, data.val_loader, trained.postprocess, evaluator, settings)
        if metrics is not None and (job.args.test or job.args.save_results):
            evaluator.write_results(folder / "eval" / "predictions.json")
        if metrics is not None and job.args.eval:
            report_metrics(metrics, folder / "eval" / "metrics.json")
    return 0


def make_evaluator(config: Config, data: DataParts, classes: ClassTable, folder: Path) -> BoxEvaluator:
    """A fresh evaluator of the validation set, which keeps its files in `folder`/eval."""
    ranks = distributed.rank(), distributed.world_size()
    return BoxEvaluator(
        data.val_annotations,
        classes,
        folder,
        *ranks,
        fixed_ap=config.fixed_ap,
        per_class=config.eval_per_class,
        record=data.record,
        parts=data.val_parts,
        damaged_ids=data.damaged_val_ids,
    )


if __name__ == "__main__":
    sys.exit(main())
