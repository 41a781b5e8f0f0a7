"""The trainer's own arguments for a U-Net: those of Ultralytics that mean the same here, under the same names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from distill.errors import InputError
from distill.text import nearest

OPTIMIZERS = ("AdamW", "Adam", "SGD")


@dataclass(frozen=True)
class Options:
    """`key=value` of a U-Net's run; None where the data or the machine decides.

    `imgsz` is the size of the training crops, one side or one for each axis (`imgsz=128`, `imgsz=32,48,32`); `patience`
    the epochs without a better Dice after which training ends; `workers` the processes that load; `amp` mixed
    precision, which needs a GPU and is the default there.
    """

    epochs: int = 100
    batch: int | None = None
    imgsz: tuple[int, ...] | None = None
    lr0: float = 1e-3
    optimizer: str = "AdamW"
    patience: int = 100
    workers: int | None = None
    amp: bool | None = None


def read_options(arguments: Mapping[str, Any]) -> Options:
    """The arguments as options. Raises InputError for a key that a U-Net does not take and for a value out of range."""
    known = [field.name for field in fields(Options)]
    for key in arguments:
        if key not in known:
            raise InputError(f"{key}=: a U-Net takes {', '.join(known)}{nearest(key, known)}")
    return Options(**{key: READERS[key](key, value) for key, value in arguments.items() if value is not None})


def _whole(least: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        text = str(value)
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise InputError(f"{key}={value}: a whole number from {least} is needed")
        return int(text)

    return read


def _sides(key: str, value: Any) -> tuple[int, ...]:
    parts = value if isinstance(value, (list, tuple)) else re.split(r"[,x]", str(value).strip("[]() "))
    sides = tuple(_whole(8)(key, str(part).strip()) for part in parts)
    if not 1 <= len(sides) <= 3:
        raise InputError(f"{key}={value}: one side, or one for each axis, such as {key}=32,48,32")
    return sides


def _rate(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{key}={value}: a number above 0 is needed")
    return number


def _optimizer(key: str, value: Any) -> str:
    found = {name.lower(): name for name in OPTIMIZERS} | {"auto": OPTIMIZERS[0]}
    if str(value).lower() not in found:
        raise InputError(f"{key}={value}: one of auto, {', '.join(OPTIMIZERS)}")
    return found[str(value).lower()]


def _truth(key: str, value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise InputError(f"{key}={value}: true or false is needed")
    return str(value).lower() == "true"


READERS: dict[str, Callable[[str, Any], Any]] = {
    "epochs": _whole(1),
    "batch": _whole(1),
    "imgsz": _sides,
    "lr0": _rate,
    "optimizer": _optimizer,
    "patience": _whole(1),
    "workers": _whole(0),
    "amp": _truth,
}
