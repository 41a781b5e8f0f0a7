"""How far something is, on standard error, where people look while they wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
SILENT = 2.0  # seconds: what is done sooner needs no progress
EVERY = 10.0  # seconds between lines where the output is no terminal


def progress(items: Iterable[T], label: str, total: int) -> Generator[T, None, None]:
    """The items, as they are, with a line such as `images 5/16` that is rewritten as they go by."""
    started = said = time.monotonic()
    live = sys.stderr.isatty()
    shown = done = 0
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - started > SILENT and (live or now - said > EVERY):
                _say(f"{label} {done}/{total}", live)
                said, shown = now, 1
            yield item
        done = total
    finally:  # also when it is stopped: the terminal's line is ended
        if shown:
            _say(f"{label} {done}/{total}", live)
            if live:
                print(file=sys.stderr)


def _say(text: str, live: bool) -> None:
    print(f"\r{text}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)
