"""A way of teaching, declared once: when it is asked for, what it compares, its terms, and what is said of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from distill.attention.layers import LayerInfo
from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.settings import DEFAULT_SHARE, Settings
from distill.terms.base import Term
from distill.text import Table

Planned = dict[str, Any]  # what a run teaches by a method, in plain types, as the manifest keeps it; {} for nothing
Figures = Mapping[str, float | None]  # of all terms, means over validation images


@dataclass(frozen=True)
class Head:
    """The outputs of two detection heads, level by level: the modules that give class scores and boxes.

    Each of the `branches` has a name ("" for the one that answers many times per object), pairs of its `classes` and of
    its `boxes`, and the layers `at` which its losses are weighed. `bins` is over how many distances each head spreads a
    side of a box; `upright` says that boxes are no more than four distances.
    """

    branches: Sequence[Mapping[str, Any]]
    bins: tuple[int, int]
    upright: bool


@dataclass(frozen=True)
class Networks:
    """What a method may know of the networks before a run, "detector" or "unet"; a teacher's are empty without one.

    `look` finds the layers of both, `names` and `known` are the classes of each, of which those numbered `kept` are
    trained (all, if none are given). `head` compares their outputs; it raises InputError where there are none to
    compare. `scores` are the teacher's modules of class scores by level. `boxes` says that the task's labels are boxes,
    `gated` that the student has gates, `knows` that it starts from weights that can tell something.
    """

    kind: str
    task: str
    look: Callable[[], tuple[Sequence[LayerInfo], Sequence[LayerInfo]]]
    names: Sequence[str] = ()
    known: Sequence[str] = ()
    kept: Sequence[int] = ()
    head: Callable[[], Head] | None = None
    scores: Mapping[int, str] = field(default_factory=dict)
    boxes: bool = True
    gated: bool = False
    knows: bool = False

    @cached_property
    def layers(self) -> tuple[Sequence[LayerInfo], Sequence[LayerInfo]]:
        """The student's layers and the teacher's, found when they are first asked for."""
        return self.look()


class Method(ABC):
    """One way of teaching. Its `name` is that of its entry in the manifest.

    `options` are its settings; `weight_option` and `share_option` those that fix or measure the weight of each of its
    terms. `kinds` are the students that can be taught so: "detector", "unet".
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    weight_option: ClassVar[str] = ""
    share_option: ClassVar[str] = ""
    kinds: ClassVar[tuple[str, ...]] = ("detector", "unet")

    @abstractmethod
    def asked(self, settings: Settings) -> bool:
        """Is it asked to teach: on its own, or by default?"""

    @abstractmethod
    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        """What it teaches in such a run, and lines that tell what is left out. Raises InputError for what cannot be."""

    @abstractmethod
    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        """The terms of what was planned; an `audit` never shuffles."""

    def as_planned(self, planned: Planned) -> Method:
        """This method with the settings that a plan holds, where it has some of its own."""
        return self

    def idle(self, settings: Settings) -> Sequence[str]:
        """Of its options those that were given and have no effect where no teacher teaches."""
        return [name for name in self.options if getattr(settings, name) != getattr(Settings, name)]

    def fixed_weight(self, settings: Mapping[str, Any]) -> float | None:
        """The weight of each of its terms, where one was given."""
        return settings.get(self.weight_option)

    def wanted_share(self, settings: Mapping[str, Any]) -> float:
        """Otherwise the gradient that each is to have, as a share of the task's."""
        share: float | None = settings.get(self.share_option)
        return DEFAULT_SHARE if share is None else share

    def asks_teacher(self, planned: Planned) -> bool:
        """Does what was planned need the teacher while it trains?"""
        return True

    def rows(self, planned: Planned) -> list[tuple[str, Pair]]:
        """The pairs of layers that it compares, with their log columns."""
        return []

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        """What came of it, for the end of a run, from all terms' figures."""
        return None

    def refuse(self, settings: Settings, kind: str) -> None:
        """Raise InputError for options of a method that students of this kind cannot have."""
        if kind in self.kinds:
            return
        for name in self.options:
            if getattr(settings, name) not in (getattr(Settings, name), ()):
                other, this = ("detectors", "a U-Net") if kind == "unet" else ("U-Nets", "a detector")
                raise InputError(f"--{name.replace('_', '-')} is for {other}: {this} has no such thing")


def read_pairs(planned: Planned) -> list[Pair]:
    """The pairs of a plan."""
    return [Pair(**pair) for pair in planned["pairs"]]
