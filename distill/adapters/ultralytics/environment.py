"""The installed Ultralytics: switched to safe habits before it is imported, and checked for what the adapter needs."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import InputError

OLDEST, NEWEST = (8, 4, 180), (8, 5)  # from the first, up to but without the second
TRUST = "add --trust only if you know who made it"
THREADS = "DISTILL_THREADS"  # environment variable: threads of this process on a CPU, where several runs share it
NEEDED = 'pip install "ultralytics>=8.4.180,<8.5"'


def prepare(trust: bool = False) -> None:
    """Make Ultralytics ready for this process; to be called before anything else imports it.

    Unless `trust` is given, checkpoints are read with the restricted loader wherever Ultralytics itself reads one, and
    it installs no packages. A user who imported Ultralytics earlier has missed these two flags, which are read once, at
    import; so nothing here relies on them, and every file the user names is read through `inputs`.

    Raises InputError, with the command that mends it, when Ultralytics is missing, of another version, or without a
    piece that the adapter stands on.
    """
    if not trust:
        os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        version = importlib.import_module("ultralytics").__version__
        tasks = importlib.import_module("ultralytics.nn.tasks")
        torch_utils = importlib.import_module("ultralytics.utils.torch_utils")
    except ImportError as error:
        raise InputError(f"ultralytics cannot be imported ({' '.join(str(error).split())}): {NEEDED}") from error
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not OLDEST <= number < NEWEST:
        raise InputError(f"ultralytics {version} is installed, which this adapter was not made for: {NEEDED}")
    if missing := _missing(tasks, torch_utils):
        raise InputError(f"ultralytics {version} has no {missing}: {NEEDED}")
    if not tasks._SafeLoad.SUPPORTED:
        raise InputError('this torch cannot read checkpoints safely: pip install "torch>=2.6"')
    if threads := os.environ.get(THREADS):  # it sets its own number on a CPU, whatever OMP_NUM_THREADS says
        vars(torch_utils)["NUM_THREADS"] = int(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Ultralytics' log held back to errors: what is built only to be measured is no news."""
    logger = importlib.import_module("ultralytics.utils").LOGGER
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def shipped(file: str | Path) -> bool:
    """Whether the file, links followed, lies inside the installed Ultralytics, and so is as trusted as its code."""
    root = importlib.import_module("ultralytics.utils").ROOT
    return Path(file).resolve().is_relative_to(root.resolve())


def _missing(tasks: object, torch_utils: object) -> str:
    load = getattr(tasks, "torch_safe_load", None)
    if load is None or "safe_only" not in inspect.signature(load).parameters:
        return "torch_safe_load(safe_only=)"
    if not hasattr(getattr(tasks, "_SafeLoad", None), "SUPPORTED"):
        return "restricted loader"
    return "" if hasattr(torch_utils, "unwrap_model") else "unwrap_model"
