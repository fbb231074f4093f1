"""Computes the box metrics of a predictions file, without a model.

    python tools/evaluate_predictions.py --annotations lvis_v1_val.json --predictions results.json

Prints the 13 LVIS metrics under the names of the lvis package, or the 12 COCO metrics if no image has
`neg_category_ids`, i.e. every class is annotated on every image. Values are 0..1 in full precision, -1 where
there is no ground truth.

PREDICTIONS is a JSON list of {image_id, category_id, bbox: [x, y, width, height], score}, a run's
`eval/predictions.npy`, or an .npz with the arrays image_id, category_id, bbox and score.
Where next to nothing matches, it says what would: boxes in another form or size, ids that are shifted.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations.cache import open_annotations
from datasets.annotations.categories import ClassTable
from datasets.annotations.frequency import as_in_training, recounted, with_frequencies
from datasets.annotations.split_file import SplitFile
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.evaluator import evaluate_boxes, has_id_zero
from datasets.evaluation.hints import hints, is_near_zero
from datasets.evaluation.lvis import evaluate_lvis
from datasets.evaluation.predictions import Predictions, read_predictions
from datasets.evaluation.reference import coco_reference_metrics, reference_metrics
from datasets.evaluation.result import BoxResult
from util.errors import UserError, run_command
from util.files import atomic_write
from util.logging import get_logger, setup_logging


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", required=True, help="annotations of LVIS or COCO (JSON)")
    parser.add_argument(
        "--predictions", required=True, help="results JSON, predictions.npy of a run, or .npz"
    )
    parser.add_argument(
        "--train_annotations",
        help="training annotations: their images group classes (APr, APc, APf) that --annotations do not",
    )
    parser.add_argument(
        "--split",
        help="split.json of a run with val_share: only the validation images of --annotations count",
    )
    parser.add_argument("--json", help="write the metrics to this file")
    parser.add_argument("--result", help="write metrics, protocol and per-class results to this file (JSON)")
    parser.add_argument(
        "--fixed_ap",
        action="store_true",
        help="add Fixed AP: the top 10,000 detections per class instead of the top 300 per image",
    )
    parser.add_argument(
        "--protocol", choices=("auto", "lvis"), default="auto", help="lvis: LVIS metrics for any file"
    )
    parser.add_argument(
        "--reference", action="store_true", help="compute with lvis or pycocotools instead (slow)"
    )
    return parser.parse_args(arguments)


def evaluate(arguments: argparse.Namespace) -> BoxResult:
    """Metrics and classes; metrics only from the reference packages."""
    annotations = _read_annotations(arguments)
    predictions = read_predictions(arguments.predictions)
    try:
        result = _evaluate(arguments, annotations, predictions)
    except UserError as error:
        raise UserError("; ".join([str(error), *hints(annotations, predictions)])) from None
    if is_near_zero(result.metrics, predictions):
        for hint in hints(annotations, predictions):
            get_logger().warning("AP50 is near 0; a hint: %s", hint)
    return result


def _read_annotations(arguments: argparse.Namespace) -> AnnotationTable:
    """Those to evaluate on: the validation part of a split, with the groups of the training images."""
    table = open_annotations(arguments.annotations)
    train = open_annotations(arguments.train_annotations) if arguments.train_annotations else None
    if arguments.split:
        if arguments.reference:
            raise UserError("--reference reads the whole file: leave --split or --reference out")
        split = SplitFile.open(Path(arguments.split))
        part, table = split.parts(table)
        train = train or recounted(part)
    if train is None:
        return table
    classes = ClassTable.from_categories(with_frequencies(train.categories))
    return replace(table, categories=as_in_training(table.categories, classes))


def _evaluate(
    arguments: argparse.Namespace, annotations: AnnotationTable, predictions: Predictions
) -> BoxResult:
    if arguments.reference:
        reference = reference_metrics if annotations.federated else coco_reference_metrics
        package = "lvis" if annotations.federated else "pycocotools"
        if has_id_zero(annotations):
            get_logger().warning(
                "%s: has an annotation of id 0, and %s counts what matches it as a false positive; without "
                "--reference it counts as a match",
                annotations.name, package,
            )  # fmt: skip
        return BoxResult((package,), reference(arguments.annotations, predictions.to_results()), ())
    if arguments.protocol == "lvis":
        return evaluate_lvis(annotations, predictions, fixed_ap=arguments.fixed_ap)
    return evaluate_boxes(annotations, predictions, fixed_ap=arguments.fixed_ap)


def main(words: list[str] | None = None) -> int:
    """Prints and writes the metrics. Raises UserError for a file that cannot be read or evaluated."""
    arguments = parse_arguments(words)
    setup_logging()
    result = evaluate(arguments)
    for protocol in result.protocols:
        get_logger().info("%s", protocol)
    for name, value in result.metrics.items():
        print(f"{name:<8} {value}")
    if arguments.json:
        with atomic_write(arguments.json, durable=False) as file:
            file.write(json.dumps(result.metrics, indent=1) + "\n")
    if arguments.result:
        result.write(arguments.result)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
