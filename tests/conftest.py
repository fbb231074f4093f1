import logging

import pytest

from util import logging as project_log


@pytest.fixture(autouse=True)
def _the_log_as_it_was():
    """Commands set up the log; the tests after them find it as it was."""
    loggers = [logging.getLogger(), *map(logging.getLogger, project_log._OURS)]
    levels = [logger.level for logger in loggers]
    handlers = list(loggers[0].handlers)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    kinds = (project_log._ConsoleHandler, project_log._FileHandler)
    for handler in [h for h in loggers[0].handlers if isinstance(h, kinds) and h not in handlers]:
        loggers[0].removeHandler(handler)
        handler.close()
