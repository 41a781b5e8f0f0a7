"""Child processes: started in groups of their own, asked how they are, stopped whole; and the lock they share."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distill.errors import InputError

GRACE = 10.0  # seconds that a stopped run has to end by itself
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in what getrusage counts


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), wall-clock seconds, and its peak memory in bytes.

    What it started itself, such as processes that load data, is not counted.
    """

    code: int
    seconds: float
    memory: int


class Child:
    """A command under way, its output in `log`, in a process group of its own: a terminal's Ctrl-C does not reach it.

    It holds `lock` open, so that the lock lives as long as it does.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], lock: int) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=(lock,),
                start_new_session=True,
            )
        self.started = time.monotonic()
        self._peak = 0
        self._how: Ended | None = None

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        if self._how is None:
            self._peak = max(self._peak, _peak_of(self._process.pid))
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid == 0:
                return None
            self._process.returncode = code = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
            self._how = Ended(code, time.monotonic() - self.started, self._peak or usage.ru_maxrss * RSS_UNIT)
        return self._how

    def signal(self, number: int) -> None:
        """To it and everything that it started."""
        if self._how is None:
            os.killpg(self._process.pid, number)


def _peak_of(pid: int) -> int:
    """The most memory that a process has had resident so far, in bytes; 0 where Linux does not tell.

    What the system tells once it has ended (ru_maxrss) counts its time before exec too, when it was its parent's image.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def stop(children: Sequence[Child]) -> None:
    """End them all: asked first, killed after a while."""
    for child in children:
        child.signal(signal.SIGTERM)
    until = time.monotonic() + GRACE
    left = list(children)
    while left:
        left = [child for child in left if child.poll() is None]
        if left and time.monotonic() > until:
            for child in left:
                child.signal(signal.SIGKILL)
        time.sleep(0.05 if left else 0)


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """A lock on the bench's folder, as a file descriptor that its runs inherit.

    Raises InputError while another process works there, also a run that outlived a bench which was killed.
    """
    descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder}: this bench, or a run of it that outlived it, is still at work: wait, or stop it"
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def ended_as_interrupts() -> Iterator[None]:
    """A request to end (SIGTERM, SIGHUP) becomes a KeyboardInterrupt, so that children are stopped first."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # not under nohup
    try:
        before = {number: signal.signal(number, interrupt) for number in heard}
    except ValueError:  # not in the main thread, where alone signals arrive
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
