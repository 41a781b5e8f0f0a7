"""Settings from the command line, from YAML and from Python: loosely typed values in, strict settings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.settings import Settings
from distill.text import as_text, nearest

KINDS: dict[str, type] = {"str": str, "float": float, "int": int, "bool": bool, "tuple": tuple}
EMPTY = ("response", "features")  # settings that `none` leaves empty
ANSWERS = ("layers", *EMPTY)  # settings for which `none` is an answer, not the absence of one
TEACHER = "{teacher}"  # stands in a recipe for the path of the teacher
ALIASES = {"model": "student"}  # so that a `yolo train` line works as it is


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings from loosely typed values (text from the command line, lists from YAML).

    Raises InputError for an unknown name (nearest given) or a value of the wrong type.
    """
    names = [f.name for f in fields(Settings)]
    for key in values:
        if key not in names:
            raise InputError(f"unknown setting '{key}'{nearest(key, names)}")
    return replace(Settings(), **{key: _typed(key, value) for key, value in values.items()})


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours and the trainer's, from one flat mapping; `model` counts as `student`, dashes as underscores."""
    names = {f.name for f in fields(Settings)}
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for key, value in values.items():
        name = ALIASES.get(key, key.replace("-", "_"))
        into = ours if name in names else theirs
        if name in into:
            raise InputError(f"'{name}' is given twice: once is enough")
        into[name] = as_text(value) if isinstance(value, PathLike) else value
    return ours, theirs


def with_teacher(value: Any, teacher: str | None, what: str) -> Any:
    """A recipe's value with the teacher's path where it says `{teacher}`. Raises InputError where there is none."""
    if isinstance(value, list):
        return [with_teacher(item, teacher, what) for item in value]
    if not isinstance(value, str) or TEACHER not in value:
        return value
    if teacher is None:
        raise InputError(f"--teacher is missing: {what} names it")
    return value.replace(TEACHER, teacher)


def read_config(path: str) -> dict[str, Any]:
    """A YAML file of settings; a bare name such as `yolo11-six-layers` means a file of the package's `configs`.

    Raises InputError when it is missing, not YAML, or not a mapping.
    """
    return read_mapping(find_config(path), f"--config {path}")


def read_mapping(file: Path, what: str) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError, which begins with `what`, for one that is no such thing."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{what}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{what}: must be a mapping of settings, such as 'layers: [P3, P4]'")
    return {str(key): value for key, value in values.items()}


def find_config(path: str) -> Path:
    """The file itself, or the one of that name that comes with the package. Raises InputError when there is none."""
    shipped = shipped_configs()
    for candidate in (Path(path), *(folder / name for folder in shipped for name in (path, f"{path}.yaml"))):
        if candidate.is_file():
            return candidate
    known = [file.stem for folder in shipped for file in folder.glob("*.yaml")]
    raise InputError(f"--config {path}: no such file{nearest(path, known)}")


def shipped_configs() -> list[Path]:
    """The folders of settings that come with the package: inside it where it is installed, beside it in a checkout."""
    here = Path(__file__).parent
    return [folder for folder in (here / "configs", here.parent / "configs") if folder.is_dir()]


def recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name: what `distill bench` calls arms."""
    found = [file for folder in shipped_configs() for file in (folder / "recipes").glob("*.yaml")]
    return {file.stem: file for file in sorted(found, key=lambda file: file.stem)}


def _typed(key: str, value: Any) -> Any:
    wanted = _kind(key)
    unset = isinstance(value, str) and value.lower() == "none"  # but --layers none and --init none are answers
    if value is None or (unset and (wanted is not str or key == "teacher") and key not in ANSWERS):
        return getattr(Settings(), key)
    found = converted(key, value, wanted)
    return () if key in EMPTY and [item.lower() for item in found] == ["none"] else found


def converted(key: str, value: Any, wanted: type) -> Any:
    """A loosely typed value as a `str`, `float`, `int`, `bool` or `tuple` of strings. Raises InputError."""
    try:
        if wanted is tuple:
            items = value.split(",") if isinstance(value, str) else value
            items = items if isinstance(items, (list, tuple)) else [items]
            return tuple(str(item).strip() for item in items if str(item).strip())
        if wanted is bool:
            return _boolean(key, value)
        if wanted is str:
            return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if isinstance(value, bool) or (wanted is int and float(value) != int(float(value))):
            raise ValueError
        return wanted(float(value)) if wanted is int else wanted(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{key}={value!r}: a {'whole number' if wanted is int else 'number'} is needed") from error


def _kind(key: str) -> type:
    """The plain type of a setting: `float` of `float | None`, `tuple` of `tuple[str, ...]`."""
    return kind_of(next(str(setting.type) for setting in fields(Settings) if setting.name == key))


def kind_of(declared: Any, what: str = "") -> type:
    """The plain type of an annotation, text or not. Raises InputError, which begins with `what`, for another."""
    text = declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))
    plain = text.removesuffix(" | None").partition("[")[0]
    if plain not in KINDS:
        raise InputError(f"{what}: a setting is a str, int, float, bool or tuple[str, ...], not {text}")
    return KINDS[plain]


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise InputError(f"{key}={value!r}: true or false is needed")
