import logging
import os
import signal

import pytest

# Before huggingface_hub is imported: no test of this process asks the network for anything.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests import typecheck
from tests.browser import browser as browser  # fixtures of every test
from tests.compiling import fresh_compiler as fresh_compiler
from tests.docs.stand_in import checkout as checkout
from tests.docs.stand_in import finished_quickstart as finished_quickstart
from util import logging as project_log
from util.signals import STATUS

typecheck.install()

_LOGGERS = [logging.getLogger(), *map(logging.getLogger, project_log._OURS)]
# Taken before any test or fixture, of whatever scope, has set up a log or handles signals.
_LEVELS = [logger.level for logger in _LOGGERS]
_HANDLERS = {number: signal.getsignal(number) for number in STATUS}
_KINDS = (project_log._ConsoleHandler, project_log._FileHandler)


@pytest.fixture(autouse=True)
def _the_log_as_it_was():
    """Commands set up the log; the tests after them find it as it was."""
    yield
    for logger, level in zip(_LOGGERS, _LEVELS, strict=True):
        logger.setLevel(level)
    for handler in [h for h in _LOGGERS[0].handlers if isinstance(h, _KINDS)]:
        _LOGGERS[0].removeHandler(handler)
        handler.close()


@pytest.fixture(autouse=True)
def _the_environment_as_it_was():
    """Commands set variables for the processes they start; the tests after them find them as they were."""
    before = dict(os.environ)
    yield
    if before != dict(os.environ):
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _the_signals_as_they_were():
    """A run that ends in this process leaves SIGUSR1 ignored, and shells that it starts could not trap it."""
    yield
    for number, handler in _HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture
def no_nohup():
    """A hang-up is not ignored, also by processes that the test starts, where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
