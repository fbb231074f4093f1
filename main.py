"""Train or evaluate a detector: command line -> config -> parts -> engine. See `python main.py --help`."""

import os
import sys
from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Waiting threads sleep; spinning ones stop each other on busy cores. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from config import Config, dump, from_official_args, load, parse_options, with_overrides
from config.command_line import parse_arguments, process_section, report, run_section
from datasets.annotations.categories import ClassTable
from datasets.build import DataParts, RunSettings, build_datasets
from datasets.evaluation.evaluator import BoxEvaluator
from engine.build import build_settings, build_state, wrap_distributed
from engine.checkpoint import check_class_names, evaluated_weights, read_checkpoint
from engine.evaluate import evaluate, report_metrics
from engine.fit import Validation, fit
from engine.pretrained import TransferRules, load_pretrained
from engine.random_state import seed_everything
from engine.run_directory import RunDirectory, evaluation_folder
from engine.train_epoch import Task
from models.richsem import official_checkpoint as official
from models.richsem.build import ModelParts, build_model, build_official
from util import distributed
from util.errors import UserError
from util.logging import setup_logging


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    args: Namespace
    config: Config
    checkpoint: dict[str, Any]  # the content of --resume, empty without it
    run: dict[str, Any]  # flags that checkpoints keep
    data: RunSettings
    device: torch.device


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 after an error that the user can mend."""
    try:
        args = parse_arguments(argv)
        device = distributed.setup(args.device, args.local_rank)
        setup_logging(distributed.rank())
        checkpoint = read_checkpoint(args.resume, import_official) if args.resume else {}
        run = run_section(args, checkpoint.get("run", {}))
        seed_everything(run["seed"], distributed.rank())
        data = RunSettings(**run, **process_section(args, device))
        job = Job(args, choose_config(args, checkpoint), checkpoint, run, data, device)
        (judge if args.eval or args.test else train)(job)
    except (UserError, KeyboardInterrupt) as error:
        return report(error)
    distributed.shutdown()
    return 0


def import_official(path: Path) -> dict[str, Any]:
    """A checkpoint of the official release as one of ours, as far as that goes without its classes."""
    found = official.load_official(path)
    if found is None:
        raise UserError(f"{path}: neither a checkpoint of this project nor of the official release")
    return {"official": found, "model": official.convert_state(found.model), "class_names": (), "run": {}}


def choose_config(args: Namespace, checkpoint: dict[str, Any]) -> Config:
    """The named config, else the checkpoint's; flags and --options on top."""
    overrides = parse_options(args.options) | ({"amp": True} if args.amp else {})
    if args.config_file:
        return load(args.config_file, overrides)
    if "official" in checkpoint:
        return with_overrides(from_official_args(checkpoint["official"].arguments), overrides)
    return with_overrides(Config.from_dict(checkpoint["config"]), overrides)


def train(job: Job) -> None:
    """A new run, or the rest of one."""
    args, config, device, checkpoint = job.args, job.config, job.device, job.checkpoint
    if "official" in checkpoint:
        raise UserError(f"{args.resume}: train from an official checkpoint with --pretrain_model_path")
    run = RunDirectory(Path(args.output_dir))
    distributed.on_main(lambda: run.open_for_training(args.resume))
    setup_logging(distributed.rank(), run.text_log)
    data = build_datasets(config, job.data)
    names, counts = data.classes.names, data.classes.image_counts
    check_class_names(checkpoint.get("class_names", names), names, args.resume)
    fetch = not args.pretrain_model_path or bool(args.finetune_ignore)  # else the file brings them
    state = checkpoint.get("model")
    parts = build_model(config, names, counts, device, state=state, load_backbone=fetch)
    if path := args.pretrain_model_path:
        rules = TransferRules(ignored=tuple(args.finetune_ignore))
        load_pretrained(parts.model, read_checkpoint(path, import_official), names, rules, path)
    settings = build_settings(config, device, args.debug)
    state = build_state(config, parts.model, settings.iterations(len(data.train_loader)), device)
    state.start(checkpoint, args.resume, args.start_epoch)
    distributed.on_main(lambda: run.describe(dump(config), parts.model))
    make_evaluator = partial(evaluator, config, data, data.classes, run.path)
    validation = Validation(data.val_loader, parts.postprocess, make_evaluator)
    task = Task(wrap_distributed(parts.model, device), parts.criterion, parts.teacher)
    note = args.note or checkpoint.get("note", "")
    identity = {"class_names": list(names), "config": config.to_dict(), "run": job.run, "note": note}
    fit(task, state, data.train_loader, validation, settings, run, identity)


def judge(job: Job) -> None:
    """--eval: the metrics of a checkpoint (LVIS's, or COCO's). --test: its predictions only."""
    data = build_datasets(job.config, job.data, train=False)
    classes, parts = trained_model(job, data)
    settings = build_settings(job.config, job.device, job.args.debug)
    with evaluation_folder(job.args.output_dir) as folder:
        found = evaluator(job.config, data, classes, folder)
        metrics = evaluate(parts.model, data.val_loader, parts.postprocess, found, settings)
        if metrics is not None and (job.args.test or job.args.save_results):
            found.write_results(folder / "eval" / "predictions.json")
        if metrics is not None and job.args.eval:
            report_metrics(metrics, folder / "eval" / "metrics.json")


def trained_model(job: Job, data: DataParts) -> tuple[ClassTable, ModelParts]:
    """The columns of the checkpoint's model, and the model with the weights that training evaluated."""
    categories, checkpoint = data.val_annotations.categories, job.checkpoint
    arguments: dict[str, Any] = {"device": job.device, "training": False}
    if "official" not in checkpoint:
        names, build = checkpoint["class_names"], build_model
        arguments["state"] = evaluated_weights(checkpoint)
    else:
        source, plain = checkpoint["official"], [{"id": c.id, "name": c.name} for c in categories]
        columns = official.class_columns(source.model, source.arguments)
        names, build = official.column_names(plain, columns), build_official
        arguments |= {"checkpoint": source, "unused": official.unused_columns(plain, columns)}
    classes = ClassTable.from_categories(categories, names)
    counts = classes.image_counts
    return classes, build(job.config, class_names=classes.names, image_counts=counts, **arguments)


def evaluator(config: Config, data: DataParts, classes: ClassTable, folder: Path) -> BoxEvaluator:
    """A fresh evaluator of the validation set, which keeps its files in `folder`/eval."""
    ranks = distributed.rank(), distributed.world_size()
    return BoxEvaluator(data.val_annotations, classes, folder, *ranks, fixed_ap=config.fixed_ap)


if __name__ == "__main__":
    sys.exit(main())
