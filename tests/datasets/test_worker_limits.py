import pytest

from datasets import worker_limits
from datasets.worker_limits import affordable_workers


@pytest.fixture
def machine(monkeypatch):
    """free: bytes of shared memory; files: limit of open ones."""

    def limited(free: int | None, files: int = 4096) -> None:
        monkeypatch.setattr(worker_limits, "free_shared_memory", lambda: free)
        monkeypatch.setattr(worker_limits, "_open_files_limit", lambda: files)
        monkeypatch.setattr(worker_limits, "_raise_open_files_limit", lambda: None)

    return limited


@pytest.mark.parametrize(
    ("free", "ranks", "workers"),
    [
        (None, 1, 10),  # no such folder
        (10**12, 1, 10),
        (64 * 2**20, 1, 1),  # docker's default: 3 batches of 12.8 MB fit into 9/10 of it, 5 do not
        (64 * 2**20, 2, 0),
        (10**6, 1, 0),
        (0, 8, 0),
    ],
)
def test_shared_memory_limits_loader_processes(machine, caplog, free, ranks, workers):
    machine(free)
    found = affordable_workers(10, 12_800_000, ranks)
    assert found == workers
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == (workers < 10)
    if lines:
        assert lines[0].startswith("/dev/shm has ") and lines[0].endswith(f"; using {found} instead")
        assert "--shm-size" in lines[0]


def test_no_loader_processes_need_nothing(machine, caplog):
    machine(0, files=10)
    assert affordable_workers(0, 10**9) == 0 and not caplog.records


def test_few_open_files_limit_loader_processes(machine, caplog):
    machine(None, files=64)
    assert affordable_workers(4, 1) == 0
    assert "may open 64 files (ulimit -n): using 0 loader processes instead of 4" in caplog.text
    machine(None, files=1024)
    assert affordable_workers(10, 1) == 10
