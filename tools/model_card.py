"""The model card of a published checkpoint: what is known of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config import Config, dump
from util.optional import require

ADDRESS = "hf://OWNER/NAME"
_ROOT = Path(__file__).resolve().parents[1]
_GROUPS = (("r", "rare"), ("c", "common"), ("f", "frequent"))
_TITLES = {
    "AP": "box AP",
    "AP50": "box AP at IoU 0.50",
    "AP75": "box AP at IoU 0.75",
    "APr": "box AP, rare classes",
    "APc": "box AP, common classes",
    "APf": "box AP, frequent classes",
}
_MOST_NAMES = 60
_FIELDS_OF_TAGS = ("object-detection", "long-tailed", "detr", "dino", "pytorch")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says.

    name:         of the model.
    class_names:  of each column, '' for one that is no class. frequencies, image_counts: of each column, or
                  empty where they are not known.
    epoch:        epochs trained.
    metrics:      of the evaluator, 0..1, -1 where undefined; empty where they are not known.
    official:     weights of the official release.
    dataset, license, data_license: as the user gave them, '' where not.
    """

    name: str
    config: Config
    class_names: Sequence[str]
    frequencies: Sequence[str]
    image_counts: Sequence[int]
    parameters: int
    epoch: int
    note: str
    metrics: Mapping[str, float]
    official: bool
    dataset: str
    license: str
    data_license: str

    @property
    def classes(self) -> list[str]:
        """The names of columns that are classes."""
        return [name for name in self.class_names if name]

    @property
    def defined(self) -> dict[str, float]:
        """The metrics that the data define, in percent."""
        return {name: 100 * value for name, value in self.metrics.items() if value >= 0}


def model_card(facts: Facts) -> str:
    """The README of the folder: YAML that the Hub understands, then text."""
    sections = (
        _introduction(facts),
        _use(facts),
        _results(facts),
        _training(facts),
        _limits(facts),
        _classes(facts),
    )
    card = f"---\n{_front_matter(facts)}\n---\n\n" + "\n\n".join(sections) + "\n"
    # Parsing raises ValueError where the Hub would refuse the metadata.
    require("huggingface_hub", "hub").ModelCard(card)
    return card


def set_address(card: str, repo: str) -> str:
    """A card that was written before its repository was known, with the repository's name."""
    return card.replace(ADDRESS, f"hf://{repo}")


def text_tower_file(config: Config) -> str:
    """The weight file of the text tower that new words need; '' where open_clip knows it by name, or none is
    needed."""
    return config.clip_pretrained if config.use_language and Path(config.clip_pretrained).suffix else ""


def is_of_the_checkout(file: str) -> bool:
    """Whether everybody who has this project has the file."""
    return not Path(file).is_absolute() and (_ROOT / file).is_file()


def _front_matter(facts: Facts) -> str:
    hub = require("huggingface_hub", "hub")
    tags = [*_FIELDS_OF_TAGS, "richsem"] if facts.config.use_language else [*_FIELDS_OF_TAGS]
    entries: dict[str, object] = {"license": facts.license or None, "pipeline_tag": "object-detection"}
    if facts.defined and facts.dataset:
        entries["model_name"] = facts.name
        entries["eval_results"] = [
            hub.EvalResult(
                task_type="object-detection",
                dataset_type=re.sub(r"[^a-z0-9]+", "-", facts.dataset.lower()).strip("-"),
                dataset_name=facts.dataset,
                metric_type=name,
                metric_name=_TITLES[name],
                metric_value=round(facts.defined[name], 2),
            )
            for name in _TITLES
            if name in facts.defined
        ]
    return hub.ModelCardData(tags=tags, **entries).to_yaml()


def _introduction(facts: Facts) -> str:
    config = facts.config
    if config.use_language:
        method = (
            "[RichSem](https://arxiv.org/abs/2310.12152): DINO, a deformable DETR, that compares its queries "
            "with CLIP embeddings of the class names"
        )
    else:
        method = "DINO, a deformable DETR, with linear classifiers"
    origin = " The weights are those of the official release, converted." if facts.official else ""
    return (
        f"# {facts.name}\n\nA detector of {len(facts.classes)} classes{_group_sizes(facts)}. {method}. "
        f"Backbone: `{config.backbone}`; {facts.parameters / 1e6:.1f} million parameters.{origin}"
    )


def _group_sizes(facts: Facts) -> str:
    """` (3 rare, 4 common, 5 frequent)`, or '' where the frequencies are not known."""
    sizes = [(sum(f == code for f in facts.frequencies), word) for code, word in _GROUPS]
    known = ", ".join(f"{count} {word}" for count, word in sizes if count)
    return f" ({known} in the training data)" if known else ""


def _use(facts: Facts) -> str:
    new_words = ""
    if facts.config.use_language:
        tower, weights = facts.config.clip_model, facts.config.clip_pretrained
        new_words = (
            "\n\nThe embeddings of these classes are among the weights. Other words (`--names`) need the "
            f"text tower that they were made with: `{tower}` with the weights `{weights}`."
        )
        if text_tower_file(facts.config):
            of_whom = "RichSem's checkout" if is_of_the_checkout(weights) else "its author, not among these"
            new_words += f" That is a file of {of_whom}."
    return (
        "## Use\n\nIn a checkout of RichSem with its requirements installed:\n\n"
        f'```python\nfrom hubconf import richsem\n\nmodel = richsem("{ADDRESS}")\n'
        'prediction = model("image.jpg")\n'
        "```\n\n`prediction` has `names`, `scores` and `boxes_xyxy` in pixels. On the command line:\n\n"
        f"```bash\npython tools/predict.py {ADDRESS} IMAGE_OR_FOLDER\n"
        f"python main.py --eval --resume {ADDRESS} --data_path DATA\n```{new_words}"
    )


def _results(facts: Facts) -> str:
    if not facts.defined:
        return "## Results\n\nNo metrics were recorded for these weights."
    rows = []
    for name, value in facts.defined.items():
        rows.append(f"| {name} | {value:.2f} | {_TITLES.get(name, '')} |")
    undefined = [name for name, value in facts.metrics.items() if value < 0]
    note = f"\n\nUndefined on these data: {', '.join(undefined)}." if undefined else ""
    where = facts.dataset or "the validation set of the run"
    return (
        f"## Results\n\nOn {where}, in percent:\n\n| metric | value | |\n| --- | ---: | --- |\n"
        + "\n".join(rows)
        + note
    )


def _training(facts: Facts) -> str:
    lines = [
        f"- data: {facts.dataset or 'not stated'}",
        f"- licence of the data: {facts.data_license or 'not stated'}",
        f"- licence of the weights: {facts.license or 'not stated'}",
    ]
    if facts.epoch:
        lines.append(f"- epochs: {facts.epoch}")
    if facts.note:
        lines.append(f"- note: {facts.note}")
    source = dump(facts.config)
    return (
        "## Training\n\n" + "\n".join(lines) + "\n\n<details><summary>Config</summary>\n\n"
        f"```python\n{source}```\n\n</details>"
    )


def _limits(facts: Facts) -> str:
    limits = [
        "It is meant for images like those it was trained on; on others, measure before you rely on it.",
        "It was not tested for uses where a missed or invented object can harm somebody.",
        "Scores are not calibrated probabilities: choose the threshold on your own images.",
    ]
    rare = facts.defined.get("APr")
    if rare is not None and facts.defined.get("APf", 0) > rare:
        limits.append(f"Rare classes are detected worse: APr {rare:.2f}, APf {facts.defined['APf']:.2f}.")
    seen = [count for count, name in zip(facts.image_counts, facts.class_names, strict=False) if name]
    if seen and 0 in seen:
        limits.append(f"{seen.count(0)} classes had no training image with boxes.")
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in limits)


def _classes(facts: Facts) -> str:
    shown = ", ".join(facts.classes[:_MOST_NAMES])
    more = len(facts.classes) - _MOST_NAMES
    rest = f", and {more} more in `config.json`" if more > 0 else ""
    return f"## Classes\n\n{shown}{rest}."
