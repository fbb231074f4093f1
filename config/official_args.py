"""The configuration inside an official checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from config.official import COMMAND_LINE_FLAGS
from config.schema import Config, known_keys

_log = logging.getLogger(__name__)


def from_official_args(args: Mapping[str, Any]) -> Config:
    """A Config from `vars()` of the argparse Namespace that an official checkpoint keeps under `args`.

    It mixes config keys with command line flags and what the run added. Flags are dropped; other names that
    are no keys were not written by the user, so they are logged in one line rather than refused.
    Raises UserError like `Config.from_dict`, for example where a left-out feature was in use.
    """
    known = set(known_keys()) - COMMAND_LINE_FLAGS
    stray = sorted(set(args) - known - COMMAND_LINE_FLAGS)
    if stray:
        _log.warning("ignored %d entries of the official checkpoint's args: %s", len(stray), ", ".join(stray))
    return Config.from_dict({k: v for k, v in args.items() if k in known})
