"""The lock of a run's folder: one process trains in it at a time.

A file that appears whole, names its owner and is touched every few seconds. Locks of the kernel (flock, and
filelock on top of it) would be freed by a crash, but loader processes inherit them and outlive a killed
parent by seconds, and shared file systems often have none, or one a machine. A file with a heartbeat needs
only what every file system has: to make a name that must not exist, and times of one clock, the server's.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from util.errors import UserError

_log = logging.getLogger(__name__)

# Seconds between heartbeats, and without one until the owner counts as dead. A shared file system may show a
# touch late, and may itself stand still for a while.
BEAT, STALE = 5.0, 60.0


@dataclass(frozen=True)
class Owner:
    """A process.

    machine: tells hosts, boots and containers apart.  started: tells later users of a pid apart.
    token: another one for every lock.
    """

    host: str
    pid: int
    machine: str = ""
    started: str = ""
    token: str = ""

    @classmethod
    def this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _machine(), _started(pid) or "", uuid4().hex)

    def lives(self) -> bool | None:
        """Whether the process is there. None where that cannot be told from here: on another machine."""
        if self.machine != _machine():
            return None
        return _started(self.pid) in (self.started, "?")

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class RunLock:
    """`acquire` and `release`, on rank 0 only. Not reentrant.

    path: the lock's file; its folder exists.  beat, stale: seconds.
    """

    def __init__(self, path: Path, *, beat: float = BEAT, stale: float = STALE) -> None:
        self.path, self.beat, self.stale = path, beat, stale
        self.owner = Owner.this_process()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run lock", daemon=True)

    def acquire(self) -> None:
        """Takes the lock; one whose owner is dead is taken over, with a line in the log.

        Waits where only time can tell: an owner on another machine is dead after `stale` seconds without a
        heartbeat. Raises UserError where another process has the lock, or none can be made.
        """
        try:
            self._wait_and_take()
            self._remove_old_claims()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be made ({error.strerror})") from error
        self._thread.start()

    def release(self) -> None:
        """Gives the lock back, if it was taken."""
        if self._thread.ident is None:
            return
        self._released.set()
        self._thread.join()
        found = self._read()
        if found is not None and found[0] == self.owner:
            self.path.unlink(missing_ok=True)

    def _wait_and_take(self) -> None:
        waited_for, last_beat = None, 0.0
        while not self._create():
            found = self._read()
            if found is None:
                continue
            owner, beat = found
            lives, age = owner.lives(), self._age(beat)
            if lives or (waited_for == owner and beat != last_beat):
                seen = f"last seen {max(0, round(age))} seconds ago"
                raise UserError(f"another run, {owner}, trains in {self.path.parent}, {seen}")
            if lives is False or age > self.stale:
                why = "which is gone" if lives is False else f"silent for {round(age)} seconds"
                if self._take_over(owner, beat, why):
                    return
            elif waited_for != owner:
                left = max(1, round(self.stale - age))
                _log.info("%s was in use by %s: waiting up to %d s for a sign", self.path.parent, owner, left)
                waited_for, last_beat = owner, beat
            time.sleep(self.beat / 5)

    def _keep(self) -> None:
        """The heartbeat. Ends the process when another one has taken the lock."""
        while not self._released.wait(self.beat):
            try:
                found = self._read()
                if found is None:
                    self._create()
                elif found[0] == self.owner:
                    os.utime(self.path)
                elif not self._released.is_set():
                    # Nothing more may be written to the folder, so no checkpoint either.
                    silent = "this process was silent too long, and another run"
                    print(f"error: {silent}, {found[0]}, now trains in {self.path.parent}", file=sys.stderr)
                    sys.stderr.flush()
                    os._exit(1)
            except OSError:  # a file system that is away: the next beat tries again
                continue

    def _create(self) -> bool:
        """Makes the file, whole, where there is none."""
        temporary = self._write_own()
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            # NFS may have made the link although it lost the answer.
            return temporary.stat().st_nlink == 2
        except FileNotFoundError:
            # The owner of the lock took it for a leftover.
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            return self._create_in_two_steps()
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _create_in_two_steps(self) -> bool:
        """As `_create`, where the file system has no hard links: for a moment the file is empty."""
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self.owner)))
        except FileExistsError:
            return False
        return True

    def _write_own(self) -> Path:
        temporary = self.path.with_name(f".{self.path.name}.{uuid4().hex}.tmp")
        temporary.write_text(json.dumps(asdict(self.owner)), encoding="utf-8")
        return temporary

    def _read(self) -> tuple[Owner, float] | None:
        """The owner and its last heartbeat by the file system's clock, None where there is no lock."""
        try:
            # An open file has fresh times, also on NFS.
            with open(self.path, encoding="utf-8", errors="replace") as file:
                beat, text = os.fstat(file.fileno()).st_mtime, file.read()
        except FileNotFoundError:
            return None
        try:
            return Owner(**json.loads(text)), beat
        except (ValueError, TypeError):  # half written, or not by us
            return Owner("an unknown host", 0, token=text), beat

    def _age(self, beat: float) -> float:
        """Seconds since a heartbeat, by the clock that dated it: clocks of machines may differ."""
        with tempfile.TemporaryFile(dir=self.path.parent) as file:
            return os.fstat(file.fileno()).st_mtime - beat

    def _take_over(self, owner: Owner, beat: float, why: str) -> bool:
        """Replaces a dead owner's file, unless another process does.

        Of several that try, one alone makes the claim, and it looks again: another claim may just be done.
        """
        claim = self._claim(owner)
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            if self._age(claim.stat().st_mtime) > self.stale:  # left by a process that was killed just here
                claim.unlink(missing_ok=True)
            return False
        try:
            if self._read() != (owner, beat):
                return False
            os.replace(self._write_own(), self.path)
            _log.warning("%s: took over from %s, %s", self.path.parent, owner, why)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def _claim(self, owner: Owner) -> Path:
        token = "".join(filter(str.isalnum, owner.token))[:32]
        return self.path.with_name(f"{self.path.name}.{token}.claim")

    def _remove_old_claims(self) -> None:
        """A process that was killed right after it took over leaves its claim, on an owner that is gone.

        Whoever still holds such a claim looks again, and finds this owner. A claim on it is left.
        """
        for path in self.path.parent.glob(f"{self.path.name}.*.claim"):
            if path != self._claim(self.owner):
                path.unlink(missing_ok=True)


def _machine() -> str:
    """Host, boot and process namespace: within one, a pid names one process at a time."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:  # not Linux
        pass
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine started, '?' where that is not known, None where it is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # another user's
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "?"
    # A zombie is dead, though its parent has not asked yet.
    return None if fields[0] in "ZX" else fields[19]
