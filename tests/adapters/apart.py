"""The command line in a process that can be killed at an exact moment.

Each process is forked from one that has imported everything and run nothing, so that it starts within milliseconds.
What happens in it is real: it dies of SIGKILL, it leaves with the exit code of `distill`.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]  # pytest names this package "adapters", after the folder beside it


@dataclass(frozen=True)
class Ended:
    """Exit code (negative: the signal it died of) and everything it said."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        return self.output.strip().splitlines()[-1]


def distill(*words: object, cwd: Path, before: Callable[[], None] | None = None, timeout: float = 300) -> Ended:
    """`distill words...` in a process of its own; `before()`, which has to be picklable, runs in it first."""
    log = cwd / f"apart-{len(list(cwd.glob('apart-*')))}.log"
    process = _server().Process(target=_run, args=(list(map(str, words)), str(cwd), str(log), before))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"distill {' '.join(map(str, words))}:\n{log.read_text(errors='replace')[-2000:]}")
    return Ended(process.exitcode, log.read_text(encoding="utf-8", errors="replace"))


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preloaded"])
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS.parent), str(TESTS), kept]))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if kept is None else os.environ.update(PYTHONPATH=kept)
    return context


def _run(words: list[str], cwd: str, log: str, before: Callable[[], None] | None) -> None:
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(written, stream)
    os.chdir(cwd)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests that run in the background inherit that it is ignored
    from distill.cli import main

    if before is not None:
        before()
    sys.exit(main(words))


# ---- what to do to a process: each returns something picklable for `before`


def strike(where: str, time: int = 1, after: bool = False, sign: int = signal.SIGKILL, if_named: str = "") -> Any:
    """A signal to itself at the `time`-th call of `where` ("package.module:Class.method"), before or after the call.

    With `if_named` only calls count whose last argument is a path of that name.
    """
    return functools.partial(_strike, where, time, after, sign, if_named)


def _strike(where: str, time: int, after: bool, sign: int, if_named: str) -> None:
    owner, name, original = find(where)
    calls = 0

    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += not if_named or Path(args[-1]).name == if_named
        due = calls == time and (not if_named or Path(args[-1]).name == if_named)
        if due and not after:
            os.kill(os.getpid(), sign)
        result = original(*args, **kwargs)
        if due and after:
            os.kill(os.getpid(), sign)
        return result

    setattr(owner, name, struck)


def find(where: str) -> tuple[Any, str, Any]:
    """The owner of "package.module:Class.method", the method's name, and the method."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    return owner, name, getattr(owner, name)
