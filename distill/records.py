"""What a run leaves behind: resolved settings, a manifest, a table of epochs. Written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from distill.errors import InputError

HEATMAPS = "heatmaps"
SETTINGS, MANIFEST, TABLE = "distill.yaml", "manifest.json", "results.csv"
OF_A_RUN = (SETTINGS, MANIFEST, TABLE, HEATMAPS, "args.yaml", "weights")  # what must never be of two runs


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it, at any moment, sees the old or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # there only if something failed


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz without pickles, in one step."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez_compressed(aside, **arrays)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def next_folder(project: Path, name: str) -> Path:
    """The first of `name`, `name2`, `name3`, ... that `project` does not hold yet; it is not made."""
    numbers = (name if n == 1 else f"{name}{n}" for n in count(1))
    return next(project / numbered for numbered in numbers if not (project / numbered).exists())


def numbered_folder(project: Path, name: str) -> Path:
    """The first of `name`, `name2`, ... that `project` does not hold, made: two runs that start at once get two.

    Raises InputError where it cannot be made.
    """
    while True:
        folder = next_folder(project, name)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # taken this very moment by a run beside ours
            continue
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror or error}") from error


def new_folder(path: str | Path) -> Path:
    """The absolute path of a folder that can be made. Raises InputError, before any work is done, for one that cannot.

    It may exist if it is empty.
    """
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{path} exists and is not empty: name another folder, or move it away")
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be made: {above} is {'not writable' if above.is_dir() else 'a file'}")
    return folder


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: what is written into the one that is yielded ends up at `path`.

    Nothing is left if the block fails. Raises InputError where something lies at `path` already.
    """
    folder = new_folder(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror or error}") from error
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())  # mkdtemp's are private
        if folder.exists():
            folder.rmdir()
        os.rename(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # there only if something failed


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """`distill.yaml`: everything the run was resolved to."""
    import yaml

    write_whole(folder / SETTINGS, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def read_settings(folder: Path) -> dict[str, Any]:
    """`distill.yaml` as it was written."""
    import yaml

    return dict(yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8")))


def write_manifest(folder: Path, entries: dict[str, Any]) -> None:
    """`manifest.json`: where a result comes from, and what it is. A figure that is not finite becomes null."""
    text = json.dumps(_finite(entries), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / MANIFEST, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder; empty where there is none."""
    path = folder / MANIFEST
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def keep_epochs(table: Path, last: int) -> None:
    """Drop the rows of `results.csv` behind epoch `last` and half-written ones; an epoch listed twice keeps its last.

    Ultralytics appends the row before it saves the checkpoint, so a run killed in between would list the epoch twice
    once it is resumed. It writes the header with the first row, if there is no file: a table without one is removed.
    """
    if not table.is_file():
        return
    header, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if not header.endswith("\n"):
        table.unlink()
        return
    kept: dict[int, str] = {}
    for row in rows:
        cells = _cells(row)
        whole = row.endswith("\n") and len(cells) == len(_cells(header))
        if whole and cells[0].strip().isdecimal() and int(cells[0]) <= last:
            kept[int(cells[0])] = row
    write_whole(table, header + "".join(kept.values()))


def _cells(line: str) -> list[str]:
    return next(csv.reader([line]), [])  # names of classes may hold commas, in quotes


def set_aside(folder: Path) -> None:
    """Make room for a run in a folder that exists: it is renamed, so that nothing in it is lost before training begins.

    `put_back` undoes it.
    """
    put_back(folder)  # of a run that was killed there
    os.replace(folder, _aside(folder))


def put_back(folder: Path) -> None:
    """Bring back what was set aside: all of it if no run began, otherwise what is not replaced by the run's own."""
    aside = _aside(folder)
    if not aside.is_dir():
        return
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
        return
    for path in aside.iterdir():
        if path.name not in OF_A_RUN and not (folder / path.name).exists():
            os.replace(path, folder / path.name)
    shutil.rmtree(aside)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def versions(further: Sequence[str] = ()) -> dict[str, str]:
    """Python, platform and the packages a result depends on, and the `further` ones."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in ("torch", "torchvision", "ultralytics", "numpy", *further):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def cpuinfo() -> list[str]:
    """What Linux tells of the processor, line by line; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def has_bfloat16() -> bool:
    """Does the processor compute in bfloat16 (AMX or avx512_bf16), as far as is known, so that it is faster there?"""
    flags = next((line for line in cpuinfo() if line.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def command_line() -> str:
    """How this process was started, for the record."""
    script = Path(sys.argv[0])
    start = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return shlex.join([*start, *sys.argv[1:]])
