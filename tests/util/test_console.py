"""Programs whose console goes away, fills up, or lacks letters. Each is a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_files import ROOT

PROGRAM = """
import sys
from util.console import prepare_console
prepare_console()
prepare_console()
print("first", flush=True)
sys.stdin.readline()
for _ in range(3):
    print("赤", flush=True)
print("x" * 100_000)
open(sys.argv[1], "w").write("done")
"""


def run(out: Path, stdout: int, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, out],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def goes_on(process: subprocess.Popen, out: Path) -> bytes:
    """What the program says on standard error."""
    said = process.communicate(b"\n", timeout=60)[1]
    assert (process.returncode, out.read_text()) == (0, "done")
    return said


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves(tmp_path, unbuffered):
    ours, theirs = os.pipe()
    process = run(tmp_path / "out", theirs, PYTHONUNBUFFERED=unbuffered)
    os.close(theirs)
    with open(ours, "rb") as reader:
        assert reader.readline() == b"first\n"
    assert goes_on(process, tmp_path / "out") == b""


def test_a_terminal_that_hangs_up(tmp_path):
    ours, theirs = os.openpty()
    process = run(tmp_path / "out", theirs)
    os.close(theirs)
    said = b""
    while not said.endswith(b"\n"):  # it comes in pieces
        said += os.read(ours, 100)
    os.close(ours)
    assert said == b"first\r\n"
    assert goes_on(process, tmp_path / "out") == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_said_once(tmp_path):
    with open("/dev/full", "wb") as full:
        process = run(tmp_path / "out", full.fileno())
    said = goes_on(process, tmp_path / "out")
    assert said == b"warning: standard output cannot be written (No space left on device)\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(("place", "status"), [("/dev/full", 2), ("/dev/null", 0)])
def test_a_program_whose_output_is_lost_has_failed(place, status):
    program = (
        "import sys; from util.errors import run_command; sys.exit(run_command(lambda: print('x') or 0))"
    )
    with open(place, "wb") as output:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=output, check=False)
    assert done.returncode == status


def test_letters_that_the_encoding_lacks(tmp_path):
    process = run(tmp_path / "out", subprocess.PIPE, PYTHONIOENCODING="ascii")
    said, errors = process.communicate(b"\n", timeout=60)
    assert (said, errors) == (b"first\n" + 3 * b"\\u8d64\n" + b"x" * 100_000 + b"\n", b"")
