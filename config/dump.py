"""A Config as a config file."""

from __future__ import annotations

from dataclasses import fields

from yapf.yapflib.yapf_api import FormatCode

from config.keys import SECTIONS
from config.schema import Config

_STYLE = {"based_on_style": "pep8", "column_limit": 110}


def dump(config: Config) -> str:
    """Python source that assigns every key, by section; `load` of it gives an equal Config."""
    values = config.to_dict()
    lines = ["# Every key of one run. Start from it with: python main.py -c THIS_FILE"]
    for title, section in SECTIONS.items():
        lines += ["", f"# {title}", *(f"{f.name} = {values[f.name]!r}" for f in fields(section))]
    formatted, _ = FormatCode("\n".join(lines) + "\n", style_config=_STYLE)
    return formatted
