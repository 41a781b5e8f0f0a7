"""What is shown: networks, the layers they are compared at, images with their maps and boxes, and the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from distill.attention.geometry import Frame, Lattice
from distill.attention.maps import Kind
from distill.attention.objects import Object

TEACHER, STUDENT, BASELINE = "teacher", "student", "baseline"
TRUTH = "labels"  # under which the truth stands among masks
ROLES = (TEACHER, STUDENT, BASELINE)  # the keys of networks, in the order in which they are shown


@dataclass(frozen=True)
class Network:
    """A network that is looked at: `key` is one of `ROLES`; `title` (the file's name) and `file` tell which it is.

    `classes` are the names of those it can predict, None where that is not known.
    """

    key: str
    title: str
    file: str = ""
    classes: frozenset[str] | None = None


@dataclass(frozen=True)
class Side:
    """One network's part in a row: which layer it is, and where its cells lie.

    `type` is the module's class, `grid` the map's (h, w) for the images' usual input size, which differs from image
    to image where inputs are not square.
    """

    layer: str
    type: str
    channels: int
    grid: tuple[int, ...]
    lattice: Lattice


@dataclass(frozen=True)
class Row:
    """One pair of layers (one layer, where a single network is looked at), shown as one row.

    `name` is the pair's ("P3"); `sides` by network key, without those networks that have no such layer (gates); `p` the
    power of energy maps; `about` a few words on what the layer is.
    """

    name: str
    sides: Mapping[str, Side]
    kind: Kind = "energy"
    p: float = 2.0
    about: str = ""


@dataclass(frozen=True)
class Sample:
    """One image, and what the networks make of it.

    `name` is unique and safe as a file's name; `file` is where the image came from. `picture` is (h, w, 3) uint8, RGB,
    of the size that `frame.picture` says. `maps[row.name][network.key]` is the un-normalised map (h, w), float32, on
    the layer's own grid, which covers the whole input (the letterbox's border too). `labels` is None where there are
    none to be had, and empty where the image is labelled as empty. `predictions` by network key; `verdicts` by network
    key are one line each for tasks without boxes, such as a class and its probability.

    Where objects are masks, `masks` has the class number of each pixel of the picture (h, w): the truth's under
    `TRUTH`, if it is known, and the predictions under the networks' keys; `dice` by network key and class name is how
    well they fit. Of a volume each sample is one plane; `case` is then the volume's name, under which its figures
    stand, and `lattices[row.name][network.key]` say where the cells lie in this plane.
    """

    name: str
    file: str
    picture: np.ndarray
    frame: Frame
    maps: Mapping[str, Mapping[str, np.ndarray]]
    labels: tuple[Object, ...] | None = None
    predictions: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    dice: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    case: str = ""
    lattices: Mapping[str, Mapping[str, Lattice]] = field(default_factory=dict)

    @property
    def figured(self) -> str:
        """The image that the figures speak of: this one, or the volume of which it is a plane."""
        return self.case or self.name

    def lattice(self, row: Row, key: str) -> Lattice:
        """Where the cells of a network's map lie in this image's input."""
        return self.lattices.get(row.name, {}).get(key) or row.sides[key].lattice


@dataclass(frozen=True)
class Interval:
    """A mean over `n` images with its 95 % bootstrap interval; without one (None) where n is below 2."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Numbers:
    """The figures behind the pictures, as tables of plain values (None where a figure does not exist).

    `maps`: a row per image, pair and network compared with the teacher (for a single network: per image and layer).
    `objects`: a row per image, object, pair and network. `summary[pair][network][figure]`: means over images.
    `silent[pair]`: why this pair tells nothing of the student, for the pairs of which the controls say so; and
    `silent_baseline[pair]` of the baseline. `gates`: a row per network and gate, what opening it does to the Dice. The
    columns are described where they are computed, in
    `distill.jobs.seeing.figures` and `worth`.
    """

    maps: tuple[Mapping[str, Any], ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()
    summary: Mapping[str, Mapping[str, Mapping[str, Interval]]] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    silent_baseline: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[Mapping[str, Any], ...] = ()

    def of(self, image: str, pair: str, network: str) -> Mapping[str, Any] | None:
        """The row of `maps` that this is about."""
        return self._places.get((image, pair, network))

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], Mapping[str, Any]]:
        return {(row["image"], row["pair"], row["network"]): row for row in self.maps}


@dataclass(frozen=True)
class Exhibit:
    """Everything that sheets and the report show. `reference` is the network that the others are compared with.

    `classes` are the names of the class numbers in masks, the background's first; empty without masks.
    """

    networks: tuple[Network, ...]
    rows: tuple[Row, ...]
    samples: tuple[Sample, ...]
    numbers: Numbers = field(default_factory=Numbers)
    title: str = ""
    classes: tuple[str, ...] = ()

    @property
    def reference(self) -> Network | None:
        """The teacher; None where a single network is looked at."""
        return next((network for network in self.networks if network.key == TEACHER and len(self.networks) > 1), None)

    @property
    def others(self) -> tuple[Network, ...]:
        """The networks compared with the reference, or the only one there is."""
        return tuple(network for network in self.networks if network is not self.reference)
