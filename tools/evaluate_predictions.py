"""The 13 LVIS box metrics of a predictions file, without a model.

    python tools/evaluate_predictions.py --annotations lvis_v1_val.json --predictions results.json [--json
    OUT]

PREDICTIONS is a list of {image_id, category_id, bbox: [x, y, width, height], score}, or the
`eval/predictions.npy` of a run. Values are in 0..1 in full precision, under the names that the lvis package
gives them; -1: no box of that kind.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotation_cache import open_annotations
from datasets.lvis_metrics import evaluate_lvis
from datasets.lvis_reference import reference_metrics
from datasets.predictions import read_predictions
from util.errors import UserError
from util.logging import setup_logging


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", required=True, help="LVIS annotations (JSON)")
    parser.add_argument("--predictions", required=True, help="results JSON, or predictions.npy of a run")
    parser.add_argument("--json", help="also write the metrics here")
    parser.add_argument(
        "--reference", action="store_true", help="compute them by the lvis package instead (slow)"
    )
    return parser.parse_args(arguments)


def evaluate(arguments: argparse.Namespace) -> dict[str, float]:
    """Metric name -> value in 0..1."""
    annotations = open_annotations(arguments.annotations)
    predictions = read_predictions(arguments.predictions)
    if arguments.reference:
        return reference_metrics(arguments.annotations, predictions.to_results())
    return evaluate_lvis(annotations, predictions).metrics


def main() -> int:
    """0, or 2 for something the user can mend."""
    arguments = parse_arguments()
    setup_logging()
    try:
        metrics = evaluate(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in metrics.items():
        print(f"{name:<8} {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(metrics, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
