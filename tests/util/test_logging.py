import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from util.logging import each_line_once, get_logger, setup_logging


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


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_of_any_language_reach_any_console_and_the_file(tmp_path, encoding):
    """Half of a surrogate pair is what Python makes of a file name that is not UTF-8."""
    program = (
        "import sys; from pathlib import Path\n"
        "from util.errors import UserError, run_command\n"
        "from util.logging import get_logger, setup_logging\n"
        "def main():\n"
        "    setup_logging(0, Path(sys.argv[1]))\n"
        "    get_logger().warning('logged %s', '\\u8d64 r\\xf8d \\udce4.jpg')\n"
        "    print('printed \\u8d64 r\\xf8d \\udce4.jpg')\n"
        "    raise UserError('refused \\u8d64 r\\xf8d \\udce4.jpg')\n"
        "sys.exit(run_command(main))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "log.txt"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
    )
    shown = (done.stdout + done.stderr).decode(encoding)
    assert done.returncode == 2 and "Traceback" not in shown and "Logging error" not in shown
    han, letter = "\u8d64" if encoding == "utf-8" else "\\u8d64", "\xf8" if encoding != "ascii" else "\\xf8"
    for word in ("logged", "printed", "error: refused"):
        assert f"{word} {han} r{letter}d \\udce4.jpg" in shown
    assert "\u8d64 r\xf8d \\udce4.jpg" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_the_tests_before_left_no_log_behind():
    kinds = {type(handler).__name__ for handler in logging.getLogger().handlers}
    assert "_ConsoleHandler" not in kinds and get_logger().level == logging.NOTSET


def test_repeated_lines_are_said_once(caplog):
    with each_line_once():
        for number in (1, 2, 1, 1):
            get_logger().warning("image %d", number)
    assert caplog.messages == ["image 1", "image 2"]
    get_logger().warning("image 1")
    assert caplog.messages == ["image 1", "image 2", "image 1"]


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
