"""Kernel libraries that are damaged, and builds that are killed."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.dino.ops import compiler, extension
from tests.models.dino.ops.builds import place, program, start, status_of


def cut(library: Path) -> None:
    library.write_bytes(library.read_bytes()[: library.stat().st_size // 2])


def flip(library: Path) -> None:
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 16
    library.write_bytes(content)


DAMAGES = {
    "cut": cut,
    "empty": lambda library: library.write_bytes(b""),
    "flipped": flip,
    "without checksum": lambda library: compiler._stamp(library).unlink(),
    "with half a checksum": lambda library: cut(compiler._stamp(library)),
    "a checksum of other bytes": lambda library: compiler._stamp(library).write_bytes(b"\xff" * 64),
}


@pytest.fixture
def built(monkeypatch, tmp_path):
    """A cache, a build that places a small library of torch's in it, and the list of these builds."""
    content = (Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so").read_bytes()
    builds = []

    def build(kind: str, directory: Path) -> None:
        builds.append(directory)
        library = directory / compiler.LIBRARY_NAMES[kind]
        fresh = directory / "fresh.so"
        place(fresh, content)
        fresh.replace(library)
        compiler._stamp(fresh).replace(compiler._stamp(library))

    monkeypatch.setattr(compiler, "build", build)
    monkeypatch.setattr(extension.library, "check_kernels", lambda kind: None)
    monkeypatch.setenv("RICHSEM_OPS_CACHE", str(tmp_path))
    return builds


def test_a_library_that_is_whole_but_does_not_load_is_built_again(built, monkeypatch, caplog):
    good = compiler.build
    monkeypatch.setattr(compiler, "build", bad_build)
    assert "file too short" in status_of(monkeypatch).reason
    caplog.clear()
    monkeypatch.setattr(compiler, "build", good)
    assert status_of(monkeypatch).compiled
    (folder,) = built
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "does not load" in line and line.endswith("it is built again") and str(folder) in line


def bad_build(kind: str, directory: Path) -> None:
    place(directory / compiler.LIBRARY_NAMES[kind], b"not a library")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_built_again_once_with_one_line(built, damage, monkeypatch, caplog):
    assert status_of(monkeypatch).compiled
    (folder,) = built
    library = folder / compiler.LIBRARY_NAMES["cpu"]
    # This process has the file itself mapped.
    Path(shutil.copy(library, folder / "copy")).replace(library)
    damage(library)
    assert status_of(monkeypatch).compiled
    assert len(built) == 2
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert line.endswith("it is built again") and str(folder) in line
    assert "from" in status_of(monkeypatch).reason
    assert len(built) == 2


def test_what_killed_builds_left_is_removed_by_the_next_build(built, monkeypatch):
    status_of(monkeypatch)
    (folder,) = built
    left = folder / f"{compiler.SCRATCH}abc"
    left.mkdir()
    (left / "kernels.o").touch()
    (folder / compiler.LIBRARY_NAMES["cpu"]).unlink()
    assert status_of(monkeypatch).compiled
    assert not left.exists()


def test_compilers_die_with_the_process_that_started_them(tools, tmp_path):
    program(tools / "c++", f"echo $$ > {tmp_path}/driver; sleep 100 & echo $! > {tmp_path}/child; wait")
    step = f"compiler.Step(('{tools}/c++',), Path('x'))"
    process = start(f"from pathlib import Path; from models.dino.ops import compiler; compiler.run({step})")
    child = tmp_path / "child"
    wait_until(lambda: child.is_file() and child.read_text().endswith("\n"))
    compilers = [int((tmp_path / name).read_text()) for name in ("driver", "child")]
    assert all(map(alive, compilers))
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, compilers)))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_step_that_succeeds_or_fails_leaves_nothing_running(tools):
    program(tools / "c++", "echo said; echo complained >&2; exit $1")
    assert compiler.run(compiler.Step((f"{tools}/c++", "0"), Path("x.o"))) == "said\ncomplained\n"
    with pytest.raises(compiler.BuildError, match=r"c\+\+ failed on x: complained"):
        compiler.run(compiler.Step((f"{tools}/c++", "3"), Path("x.o")))
