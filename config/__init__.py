"""Config files in Python, checked against one typed schema.

`load` reads a file, `Config` is what everybody gets, `dump` writes one back. Only `build.py` files,
`main.py` and the tools see it; everything below is handed plain arguments.
"""

from config.dump import dump
from config.loader import from_official_args, load, with_overrides
from config.options import parse_options
from config.schema import Config

__all__ = ["Config", "dump", "from_official_args", "load", "parse_options", "with_overrides"]
