"""Which channels of a network are the same thing, and where each of them is written and read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

Axis = tuple[str, int]  # a tensor's name in the network, and one of its axes
UNKNOWN = -1  # the number of a channel whose identity an operation mixed up


@dataclass(frozen=True)
class Piece:
    """A run of channels from `start` along an axis that stay side by side wherever they occur.

    `classes` has a number per channel: equal ones are one channel, by identity or because they are added. `head` tells
    what one attention head reads from what the others do; None outside of attention.
    """

    start: int
    classes: tuple[int, ...]
    head: int | None


class Channels:
    """The channels of one network, numbered as they come into being; `tracing.trace_channels` fills it.

    `numbers[axis]` (C,) are those along an axis, `UNKNOWN` where no identity is left. Along the axes in `readers`
    weights read; along the others they write.
    """

    def __init__(self) -> None:
        self.numbers: dict[Axis, Tensor] = {}
        self.readers: set[Axis] = set()
        self.same: Any = DisjointSet()
        self.heads: Any = DisjointSet()
        self._starts: set[int] = set()

    # ---- what was found

    @property
    def count(self) -> int:
        return len(self.same)

    def known(self, axis: Axis) -> bool:
        """Is every channel along the axis identified?"""
        return bool((self.numbers[axis] != UNKNOWN).all())

    def classes(self, axis: Axis) -> list[int]:
        """The class of each channel along a known axis: one number for all channels that are tied."""
        return [self.same[number] for number in self.numbers[axis].tolist()]

    def pieces(self, axis: Axis) -> list[Piece]:
        """A known axis, cut wherever its channels, or those that they are tied to, are cut anywhere in the network."""
        classes = self.classes(axis)
        cuts = [i for i, found in enumerate(classes) if i == 0 or found in self._cuts] + [len(classes)]
        heads = map(self._head, self.numbers[axis][cuts[:-1]].tolist())
        return [Piece(a, tuple(classes[a:b]), head) for (a, b), head in zip(pairwise(cuts), heads, strict=True)]

    def _head(self, number: int) -> int | None:
        if number not in self.heads:
            return None
        head: int = self.heads[number]
        return head

    @cached_property
    def _cuts(self) -> set[int]:
        return {self.same[number] for number in self._starts if number < self.count}

    @cached_property
    def read(self) -> set[int]:
        """The classes that some weights read; what is left are outputs, and the queries and keys of attention."""
        return {found for axis in self.readers if self.known(axis) for found in self.classes(axis)}

    @cached_property
    def layers(self) -> dict[int, set[str]]:
        """For each class, the layers (`model.4`) in which it occurs."""
        found: dict[int, set[str]] = defaultdict(set)
        for axis in filter(self.known, self.numbers):
            for number in self.classes(axis):
                found[number].add(".".join(axis[0].split(".")[:2]))
        return found

    # ---- while they are followed

    def new(self, size: int) -> Tensor:
        """Numbers for channels that come into being."""
        numbers = torch.arange(self.count, self.count + size)
        for number in numbers.tolist():
            self.same.add(number)
        return self.seen(numbers)

    def seen(self, numbers: Tensor) -> Tensor:
        """Note which channels stand side by side; gives them back."""
        known = numbers[numbers > UNKNOWN]
        if len(known):
            jumps = known.diff() != 1
            cuts = torch.cat([known[:1], known[1:][jumps], known[:-1][jumps] + 1, known[-1:] + 1])
            self._starts.update(cuts.tolist())
        return numbers

    def tie(self, one: Tensor, other: Tensor) -> None:
        """Channels that meet one by one, as in a sum, are one; nothing is tied where one of them meets several."""
        known = (one > UNKNOWN) & (other > UNKNOWN)
        pairs = (one[known] * self.count + other[known]).unique()
        ones, others = pairs // max(self.count, 1), pairs % max(self.count, 1)
        if len(ones.unique()) == len(others.unique()) == len(pairs):
            for a, b in zip(self.seen(ones).tolist(), self.seen(others).tolist(), strict=True):
                self.same.merge(a, b)

    def gather(self, numbers: Tensor) -> None:
        """Channels that one attention head reads."""
        found = numbers.unique().tolist()
        for number in found:
            self.heads.add(number)
            self.heads.merge(found[0], number)
