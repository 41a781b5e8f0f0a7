"""How values become colours, always said aloud: three modes, each with a name that stands on the picture.

- "shared": every map divided by its root mean square, which is norm 1 as the loss sees it, times the root of the number
  of cells, so that a flat map is 1 on any grid. One range for all networks and images of a row.
- "raw": the energies as they are, one range for all networks and images of a row.
- "each": every map from its own lowest to its own highest value, which shows most and compares nothing.

Gate maps have absolute values: 0 to 1 in every mode, never normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import matplotlib
import numpy as np
import torch

from distill.attention.geometry import Lattice
from distill.attention.maps import AttentionMap, Kind, meet
from distill.errors import InputError
from distill.view.exhibit import Exhibit, Row, Sample

Mode = Literal["shared", "raw", "each"]
MODES: tuple[Mode, ...] = get_args(Mode)
TITLES: Mapping[Mode, str] = {
    "shared": "shared: each map divided by its root mean square (norm 1, as the loss sees it); one range per row",
    "raw": "raw: energies as they are; one range per row",
    "each": "each: every map from its own lowest to its own highest value; colours are NOT comparable between maps",
}
MAPS, DIFFERENCES = "inferno", "RdBu_r"  # perceptually uniform; red and blue stay apart for colour-blind eyes
CUT = 1.0  # percent of the values left outside the range at an open end: a few hot cells would darken all others


@dataclass(frozen=True)
class Scale:
    """A range of values and the colours it is drawn in.

    Values outside `low` to `high` take the end colours. `label` is the text at the colour bar; `comparable` is False
    where the range belongs to one map alone; `colours` names the colour map.
    """

    low: float
    high: float
    label: str
    comparable: bool = True
    colours: str = MAPS

    @classmethod
    def shared(cls, maps: Iterable[Sequence[np.ndarray]]) -> Scale:
        """For maps in multiples of their root mean square, one sequence per network.

        From 0 to the largest of the networks' 99th percentiles, over all images: each network has a say of its own,
        whatever its grid.
        """
        high = max((_percentile(one, 100 - CUT) for one in maps), default=0.0)
        return cls(0.0, _above(0.0, high), "multiples of the map's root mean square")

    @classmethod
    def raw(cls, maps: Iterable[Sequence[np.ndarray]]) -> Scale:
        """For maps as they are, one sequence per network: the lowest 1st to the highest 99th of their percentiles."""
        groups = list(maps)
        low = min((_percentile(one, CUT) for one in groups), default=0.0)
        high = max((_percentile(one, 100 - CUT) for one in groups), default=0.0)
        return cls(low, _above(low, high), "raw energy")

    @classmethod
    def each(cls, values: np.ndarray) -> Scale:
        """From the lowest to the highest value of this one map."""
        low = float(values.min())
        return cls(low, _above(low, float(values.max())), "own lowest to own highest: not comparable", False)

    @classmethod
    def gate(cls) -> Scale:
        """0 to 1, for the coefficients of a gate."""
        return cls(0.0, 1.0, "gate coefficient")

    @classmethod
    def difference(cls, differences: Sequence[np.ndarray], label: str = "difference, in the same units") -> Scale:
        """Symmetric about zero, up to the 99th percentile of the absolute differences."""
        peak = _above(0.0, _percentile([np.abs(one) for one in differences], 100 - CUT))
        return cls(-peak, peak, label, colours=DIFFERENCES)

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Values as positions on the scale, 0 at `low` and 1 at `high`, cut off at both ends; float32."""
        position = (values.astype(np.float64) - self.low) / (self.high - self.low)
        return np.clip(position, 0, 1).astype(np.float32)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Values (h, w) as colours (h, w, 3), uint8."""
        return lut(self.colours)[np.rint(self.normalise(values) * 255).astype(np.uint8)]


@dataclass(frozen=True)
class RowScale:
    """The scales of one row in one mode.

    `maps` is common to all networks, images and epochs of the row; None in mode "each", where every map has its own
    (see `of`). `difference` is None where there is nothing to compare with, and for maps that are not comparable.
    """

    mode: Mode
    kind: Kind
    maps: Scale | None
    difference: Scale | None

    def shown(self, values: np.ndarray) -> np.ndarray:
        """A map in the units of its scale."""
        return relative(values) if self.mode == "shared" and self.kind == "energy" else values

    def of(self, values: np.ndarray) -> Scale:
        """The scale on which this map is drawn, after `shown`."""
        return self.maps or Scale.each(values)


@lru_cache
def lut(name: str) -> np.ndarray:
    """The 256 colours of a colour map, (256, 3) uint8."""
    colours = matplotlib.colormaps[name].resampled(256)(np.arange(256), bytes=True)
    table = np.ascontiguousarray(np.asarray(colours, dtype=np.uint8)[:, :3])
    table.flags.writeable = False  # one table for all callers
    return table


def relative(values: np.ndarray) -> np.ndarray:
    """A map divided by its root mean square (a zero map stays zero); float32. A flat map is 1 on any grid."""
    exact = values.astype(np.float64)
    peak = float(np.abs(exact).max(initial=0.0))
    if not peak:
        return np.zeros(values.shape, np.float32)
    exact /= peak  # guards the squares against underflow and overflow
    return np.asarray(exact / np.sqrt(np.mean(exact**2)), np.float32)


def difference(row: Row, sample: Sample, key: str, reference: str, mode: Mode) -> tuple[np.ndarray, Lattice]:
    """Network `key` minus network `reference` on the smaller grid, as the loss compares them, and where its cells lie.

    Both maps are brought to the smaller grid first and divided by their root mean squares there (mode "shared", not
    gates). The two layers' cells need not have the same centres; cell is compared with cell, as in the loss, and the
    result is drawn half-way between the two.
    """
    keys = (key, reference)
    found = [sample.maps[row.name][k] for k in keys]
    tensors = [torch.from_numpy(np.array(one, np.float32))[None] for one in found]
    met = meet(*(AttentionMap(one, row.name, row.kind) for one in tensors))
    a, b = (one.values[0].numpy() for one in met)
    if mode == "shared" and row.kind == "energy":
        a, b = relative(a), relative(b)
    mine, theirs = (sample.lattice(row, k).moved(one.shape, a.shape) for k, one in zip(keys, found, strict=True))
    return a - b, _between(mine, theirs)


def as_mode(name: str) -> Mode:
    """The mode of this name; InputError for another."""
    for mode in MODES:
        if mode == name:
            return mode
    raise InputError(f"scale '{name}' does not exist: choose one of {', '.join(MODES)}")


def scales(exhibits: Sequence[Exhibit], mode: Mode) -> dict[str, RowScale]:
    """The scales by row name, common to all images of all the exhibits (several: the epochs of a timeline)."""
    rows = {row.name: row for exhibit in exhibits for row in exhibit.rows}
    return {name: _row_scale(exhibits, row, mode) for name, row in rows.items()}


def _row_scale(exhibits: Sequence[Exhibit], row: Row, mode: Mode) -> RowScale:
    kind = row.kind
    blank = RowScale(mode, kind, None, None)
    networks: dict[str, list[np.ndarray]] = {}
    for exhibit in exhibits:
        for sample in exhibit.samples:
            for key, values in sample.maps[row.name].items():
                networks.setdefault(key, []).append(blank.shown(values))
    if kind == "gate":
        maps: Scale | None = Scale.gate()
    else:
        maps = {"shared": Scale.shared, "raw": Scale.raw}[mode](networks.values()) if mode != "each" else None
    return RowScale(mode, kind, maps, _difference_scale(exhibits, row, mode) if maps else None)


def _difference_scale(exhibits: Sequence[Exhibit], row: Row, mode: Mode) -> Scale | None:
    found = [
        difference(row, sample, network.key, exhibit.reference.key, mode)[0]
        for exhibit in exhibits
        if exhibit.reference and exhibit.reference.key in row.sides
        for sample in exhibit.samples
        for network in exhibit.others
        if network.key in row.sides
    ]
    return Scale.difference(found) if found else None


def _percentile(maps: Sequence[np.ndarray], percent: float) -> float:
    """Over the values of all maps; 0 without any."""
    return float(np.percentile(np.concatenate([one.ravel() for one in maps]), percent)) if maps else 0.0


def _above(low: float, high: float) -> float:
    """The upper end of a range that must not be empty: constant maps get one as wide as their value, or 1 for zero."""
    return high if high > low else low + (abs(low) or 1.0)


def _between(a: Lattice, b: Lattice) -> Lattice:
    def half(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
        return tuple((x + y) / 2 for x, y in zip(one, other, strict=True))

    return Lattice(half(a.offset, b.offset), half(a.stride, b.stride))
