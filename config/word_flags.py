"""The flags by which a trained model is asked for other words, the same for every command."""

import argparse
from typing import Any, Protocol

_LIST = "comma-separated, or a file with one a line"


class _Flags(Protocol):
    """A parser, or one of its groups."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action: ...


def add_word_flags(parser: _Flags) -> None:
    """Adds the flags."""
    parser.add_argument("--names", help=f"words to ask the model for instead of its classes: {_LIST}")
    # The spelling with a hyphen is an alias.
    parser.add_argument(
        "--add_names", "--add-names", help=f"words to ask for beside the model's classes: {_LIST}"
    )
    parser.add_argument(
        "--prompts", nargs="+", default=[], metavar="TEMPLATE", help="with {} for words that were not trained"
    )
    parser.add_argument("--examples", help="folder of example images for words that were not trained")
    parser.add_argument(
        "--select_by", choices=("names", "trained"), help="whose scores choose the queries (default: names)"
    )


def word_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The values of these flags, as `inference.vocabulary.WordRequest` and `load_predictor` take them."""
    names = ("names", "add_names", "prompts", "examples", "select_by")
    return {name: getattr(args, name) for name in names}
