import logging
import os

import pytest

from util.logging import get_logger, setup_logging


def test_rank_0_reports_to_console_and_file(tmp_path, capsys):
    setup_logging(0, tmp_path / "log.txt")
    logging.getLogger("engine.fit").info("epoch %d", 3)
    get_logger().warning("careful")
    setup_logging(0)  # closes the file
    console = capsys.readouterr().out
    written = (tmp_path / "log.txt").read_text()
    assert "epoch 3" in console and "warning: careful" in console
    assert "INFO epoch 3" in written and "WARNING careful" in written


def test_other_ranks_only_warn_and_write_no_file(tmp_path, capsys):
    setup_logging(2, tmp_path / "log.txt")
    logging.getLogger("datasets.detection").info("quiet")
    logging.getLogger("datasets.detection").warning("loud")
    setup_logging(0)
    console = capsys.readouterr().out
    assert "quiet" not in console
    assert "[rank 2] loud" in console
    assert not (tmp_path / "log.txt").exists()


def test_libraries_are_quiet_unless_they_warn(capsys):
    setup_logging(0)
    logging.getLogger("timm.models").info("loading")
    logging.getLogger("timm.models").warning("missing")
    console = capsys.readouterr().out
    assert "loading" not in console
    assert "missing" in console


def test_setting_up_twice_does_not_print_twice(capsys):
    setup_logging(0)
    setup_logging(0)
    get_logger().info("once")
    assert capsys.readouterr().out.count("once") == 1


def test_exceptions_keep_their_traceback(capsys):
    setup_logging(0)
    try:
        raise ValueError("inner")
    except ValueError:
        get_logger().exception("outer")
    console = capsys.readouterr().out
    assert "outer" in console and "ValueError: inner" in console


def test_the_environment_is_never_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RICHSEM_TEST_SECRET", "hush-3141")
    setup_logging(0, tmp_path / "log.txt")
    get_logger().info("start")
    setup_logging(0)
    assert "hush-3141" in os.environ.values()
    assert "hush-3141" not in capsys.readouterr().out + (tmp_path / "log.txt").read_text()


def test_the_tests_before_left_no_log_behind():
    kinds = {type(handler).__name__ for handler in logging.getLogger().handlers}
    assert "_ConsoleHandler" not in kinds and get_logger().level == logging.NOTSET


@pytest.mark.parametrize("target", ["/dev/full", "/no/such/folder/log.txt"])
def test_a_log_file_that_cannot_be_written_is_one_warning(tmp_path, capsys, target):
    file = tmp_path / "log.txt"
    file.symlink_to(target)
    setup_logging(file=file)
    for number in range(3):
        get_logger().info("line %d", number)
    setup_logging()
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("log.txt: cannot be written") == 1
    assert [shown.out.count(f"line {number}") for number in range(3)] == [1, 1, 1]
