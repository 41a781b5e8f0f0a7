"""A student that starts as a part of its teacher: "weight selection", Xu et al. 2023 (arXiv 2311.18823).

Each tensor of the student is a sub-tensor of the teacher's of the same name. The paper takes evenly spaced channels;
here the channels that one layer keeps are those that every layer behind it reads, and the strongest are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.autobackend import check_class_names

from distill.adapters.ultralytics.worth import Grams, channels_in, values_of
from distill.errors import InputError
from distill.networks.channels import Axis
from distill.networks.selection import evenly, select

CLASSIFIERS = ("cv3", "one2one_cv3", "classifier", "aux_head", "linear", "proto")  # parts of heads that end in classes
SHOWN = 5


@dataclass(frozen=True)
class Inherited:
    """What came from the teacher: `taken` of `tensors`, a `share` of the parameters.

    `left` are the modules that stay as drawn; the channels of the tensors in `spread` have no identity to be followed
    by and are evenly spaced.
    """

    taken: int
    tensors: int
    share: float
    left: tuple[str, ...]
    spread: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        names = ", ".join(self.left[:SHOWN]) + (", ..." if len(self.left) > SHOWN else "")
        spread = f", {len(self.spread)} of them evenly spaced" if self.spread else ""
        share = int(1000 * self.share) / 10  # 100.0 only where it is all
        return (
            f"initialised from teacher: {self.taken} of {self.tensors} tensors ({share}% of parameters){spread}"
            f", {self.tensors - self.taken} left as drawn{f' ({names})' if names else ''}"
        )


def inherit(
    student: Any, teacher: Any, names: Mapping[int, str], places: Mapping[Axis, Tensor] | None = None
) -> Inherited:
    """Overwrite the student's tensors, BatchNorm statistics included, by parts of the teacher's. Deterministic.

    `names` are the student's classes: where a layer has a row per class, those of equally named classes are taken.
    `places` are those of `places_of`, if they are known already.
    Raises InputError for a layer that is larger than the teacher's, and if nothing can be taken.
    """
    shared, source = shared_tensors(student, teacher), teacher.state_dict()
    places = places_of(student, teacher, names) if places is None else places
    taken: dict[str, int] = {}  # elements
    spread: dict[str, None] = {}
    for name, tensor in student.state_dict().items():
        block, norm, _ = name.rpartition(".bn.")
        if name not in shared or (norm and f"{block}.conv.weight" not in taken):  # no statistics of another convolution
            continue
        part, rows = source[name], torch.ones(tensor.shape[:1], dtype=torch.bool)
        for axis, (size, full) in enumerate(zip(tensor.shape, part.shape, strict=True)):
            place = places.get((name, axis))
            if place is None and size < full:
                place = evenly(size, full)
                spread[name] = None
            if place is not None:
                place = torch.where(place < full, place, -1)  # a name too many in a checkpoint
                part = part.index_select(axis, place.clamp(min=0))
                rows = rows & (place >= 0).all() if axis else place >= 0
        if part.shape == tensor.shape and rows.any():
            chosen = rows.reshape(rows.shape + (1,) * (tensor.dim() - 1)).to(tensor.device)
            tensor.copy_(torch.where(chosen, part.to(tensor), tensor))
            taken[name] = int(rows.sum()) * tensor.numel() // rows.numel()
    if not taken:
        raise InputError("nothing in this teacher fits the student")
    return _told(student, taken, tuple(name for name in spread if name in taken))


def places_of(
    student: Any, teacher: Any, names: Mapping[int, str], signals: Mapping[str, Tensor] | None = None
) -> dict[Axis, Tensor]:
    """For each axis of the student's tensors, the teacher's channels that it stands for; -1 where there is none.

    The strongest are taken; with `signals`, what the blocks of the teacher give on some images
    (`worth.signals_of`), those that together tell the most. Axes whose channels cannot be followed are missing. Raises
    InputError for a layer that is larger than the teacher's.
    """
    theirs = channels_in(teacher)
    carried, read = values_of(teacher, theirs)
    grams = Grams(theirs, signals, read) if signals else None
    places = select(channels_in(student), theirs, shared_tensors(student, teacher), carried * read, grams)
    return places | _class_rows(student, teacher, names)


def _told(student: nn.Module, taken: Mapping[str, int], spread: tuple[str, ...]) -> Inherited:
    tensors, parameters = list(student.state_dict()), dict(student.named_parameters())
    reached = {name[:i] for name in taken for i, sign in enumerate(name) if sign == "."}
    left: dict[str, None] = {}  # the outermost modules of which nothing was taken
    for name in (name for name in tensors if name not in taken):
        ends = [i for i, sign in enumerate(name) if sign == "." and name[:i] not in reached]
        left[name[: ends[0]] if ends else name] = None
    share = sum(taken.get(name, 0) for name in parameters) / sum(p.numel() for p in parameters.values())
    return Inherited(len(taken), len(tensors), share, tuple(left), spread)


def shared_tensors(student: nn.Module, teacher: nn.Module) -> set[str]:
    """Tensors that both have, with kernels of one size, in modules of one kind all the way down."""
    kinds = [{name: type(module) for name, module in model.named_modules()} for model in (student, teacher)]
    other = teacher.state_dict()

    def alike(name: str, tensor: Tensor) -> bool:
        paths = [name[:i] for i, sign in enumerate(name) if sign == "."]
        return (
            name in other
            and all(kinds[0].get(path) is kinds[1].get(path) for path in paths)
            and (tensor.dim(), tensor.shape[2:]) == (other[name].dim(), other[name].shape[2:])
        )

    return {name for name, tensor in student.state_dict().items() if alike(name, tensor)}


def _class_rows(student: Any, teacher: Any, names: Mapping[int, str]) -> dict[Axis, Tensor]:
    """For layers that end in classes, the teacher's row for each of the student's, -1 where it has no such class."""
    known = {name.lower(): row for row, name in reversed(check_class_names(teacher.names).items())}
    if len(names) == len(known) == 1:  # one class each is the same class, whatever its name
        known = dict.fromkeys((name.lower() for name in names.values()), 0)
    head, number = student.model[-1], len(student.model) - 1
    found: dict[Axis, Tensor] = {}
    for name, module in head.named_modules():
        plain = isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None
        if plain and name.split(".")[0] in CLASSIFIERS:
            rows = torch.tensor([known.get(names.get(i, "").lower(), -1) for i in range(len(module.bias))])
            found |= {(f"model.{number}.{name}.{kind}", 0): rows for kind in ("weight", "bias")}
    return found
