"""What the pickle in a checkpoint would do, found out without doing any of it.

The restricted loader lets a checkpoint name the classes of Ultralytics, and what may be named may also be called: a
pickle that constructs a `DistillationModel` from a path makes Ultralytics load that second file with its ordinary,
unrestricted loader (8.4.190), and one that constructs a `DetectionModel` from an address downloads a yaml into the
working folder. An honest checkpoint does neither: a network is restored attribute by attribute, never constructed.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.adapters.ultralytics.environment import TRUST
from distill.adapters.ultralytics.kinds import REFUSED, SUPPORTED
from distill.errors import InputError
from distill.text import one_line


def check_pickle(file: Path, where: str) -> None:
    """Raise InputError if the file is no checkpoint, or would do more than restore a network while it is read."""
    try:
        archive = torch._C.PyTorchFileReader(str(file))  # torch.load's own reader, so both see the same record
        if "constants.pkl" in archive.get_all_records():
            raise InputError(f"{where}: a TorchScript export, which cannot be trained; give the .pt it was made from")
        pickled = archive.get_record("data.pkl")
    except RuntimeError as error:
        raise InputError(f"{where}: {_instead_of_a_checkpoint(file)}") from error
    try:
        found = actions(pickled)
    except Exception as error:  # unpicklers raise nearly anything on damaged data
        raise InputError(f"{where}: damaged ({one_line(error)}); fetch or train it again") from error
    if "ultralytics.nn.distill_model.DistillationModel" in found.names:
        raise InputError(f"{where}: {REFUSED['DistillationModel']}; {SUPPORTED}")
    built = sorted(
        name
        for name in found.calls
        if name.startswith(("ultralytics.", "torch.nn.modules.", "distill."))
        and not name.endswith(".IterableSimpleNamespace")
    )  # the namespace holds a run's arguments, and is the one class of theirs that is pickled as a call
    if built:
        raise InputError(
            f"{where}: constructs {one_line(', '.join(built))} while it is read, as no checkpoint does; {TRUST}"
        )


def _instead_of_a_checkpoint(file: Path) -> str:
    with open(file, "rb") as opened:
        start = opened.read(2)
    if not start:
        return "the file is empty; fetch or train it again"
    if start == b"PK":
        return "the file is truncated or damaged; fetch or train it again"
    if start[:1] == b"\x80":
        return f"a pickle in an old format, which cannot be read safely; {TRUST}"
    return "not a PyTorch checkpoint"


@dataclass(frozen=True)
class Actions:
    """Dotted names of what a pickle refers to, and of those among them that it calls."""

    names: frozenset[str]
    calls: frozenset[str]


def actions(pickled: bytes) -> Actions:
    """Play the pickle with a stand-in for everything it names, and write down what is asked of the stand-ins.

    Raises whatever a damaged pickle makes the unpickler raise.
    """
    rehearsal = _Rehearsal(io.BytesIO(pickled), encoding="utf-8")  # as torch.load reads text of Python 2
    rehearsal.load()
    return Actions(frozenset(rehearsal.names), frozenset(rehearsal.calls))


class _Rehearsal(pickle.Unpickler):
    """Imports nothing and calls nothing: names become stand-in classes, tensors become None."""

    def __init__(self, file: io.BytesIO, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.names: set[str] = set()
        self.calls: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f"{module}.{name}")
        return _Called(f"{module}.{name}", (_StandIn,), {"calls": self.calls})

    def persistent_load(self, pid: Any) -> None:
        return None


class _Called(type):
    """A class that notes when it is called. Restoring an object goes past this, straight to `__new__`."""

    def __call__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        cls.calls.add(cls.__name__)
        return object.__new__(cls)


class _StandIn(metaclass=_Called):
    """Takes whatever a pickle does to an object it restores: a state, items, entries."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def _take(self, *args: Any) -> None:
        pass

    __setstate__ = append = extend = add = __setitem__ = _take
