"""Means over images with their bootstrap intervals, and what the controls say of a pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from distill.view.exhibit import Interval

Table = Iterable[Mapping[str, Any]]

RESAMPLES = 1000
LEAST_IMAGES = 4  # fewer say nothing against a pair: 3 images have only 10 resamples that differ
FALSE_ALARM = "false alarm"

OF_MASKS = ("foreground_energy", "foreground_share", "foreground_ratio", "alpha_mean", "alpha_std", "alpha_r")
MAP_FIGURES = (
    *("distance", "cosine", "spearman", "overlap", "area", "reference_area"),
    *("shuffled_distance", "shuffled_cosine", "flat_distance", "flat_cosine", "untrained_distance", "untrained_cosine"),
    *OF_MASKS,
)
NEARER = "nearer"  # than the baseline, by so much
BOX_FIGURES = {  # what the summary calls a column of objects
    "box_energy": "energy",
    "box_share": "share",
    "box_ratio": "ratio",
    "box_ratio_gap": "ratio_gap",
    "pointing": "pointing",
    "pointing_chance": "pointing_chance",
}
PARTS = ("small", "medium", "large", "hit", "miss", FALSE_ALARM)
IN_PARTS = ("box_ratio", "pointing")  # the figures that are also told by size and by whether the object was found
FIGURES = (*MAP_FIGURES, NEARER, *BOX_FIGURES, *(f"{figure}:{part}" for figure in IN_PARTS for part in PARTS))

CONTROLS = {  # in the words of a report: "P5 tells nothing: ..."
    "shuffled_distance": "that to its maps of other images",
    "flat_distance": "that of a flat map",
    "untrained_distance": "that of an untrained student",
}


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean and its 95 % bootstrap interval (percentile method), the same for the same values and seed.

    The percentile method is defined for values that are all equal, too; with few images it is too narrow, as any is.
    Raises ValueError for no values.
    """
    if not len(values):
        raise ValueError("no values have no mean")
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Interval(mean, None, None, len(data))
    generator = np.random.default_rng(seed)
    found = bootstrap((data,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=generator).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(data))


def summarise(
    maps: Table, objects: Table, pairs: Sequence[str], networks: Sequence[str], seed: int = 0
) -> dict[str, dict[str, dict[str, Interval]]]:
    """`summary[pair][network][figure]` of the tables of maps and objects, in the order given and that of `FIGURES`.

    Images are what is resampled: an image's objects are averaged first. False alarms count only for the figure that
    is called after them, so that networks are compared on the same objects. Chance is averaged over the objects whose
    pointing is known. A figure that no image has is left out.
    """
    values: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows, read in ((maps, _of_maps), (objects, _of_object)):
        for row in rows:
            for figure, value in read(row).items():
                if value is not None:
                    values[row["pair"], row["network"], figure][row["image"]].append(value)
    return {
        pair: {
            network: {
                figure: interval([fmean(image) for image in values[pair, network, figure].values()], seed)
                for figure in FIGURES
                if (pair, network, figure) in values
            }
            for network in networks
        }
        for pair in pairs
    }


def silent_pairs(maps: Table, pairs: Sequence[str], network: str, seed: int = 0) -> dict[str, str]:
    """Why a pair tells nothing of `network`, for the pairs that a control speaks against.

    Images are paired: the distance to the teacher must be smaller than that of the control by an amount whose 95 %
    interval lies above 0. Fewer than `LEAST_IMAGES` images give no verdict.
    """
    verdicts = {}
    for pair in pairs:
        rows = [row for row in maps if (row["pair"], row["network"]) == (pair, network)]
        for control, name in CONTROLS.items():
            both = [(row["distance"], row[control]) for row in rows if None not in (row["distance"], row[control])]
            if len(both) >= LEAST_IMAGES and not _below(both, seed):
                own, theirs = (f"{fmean(column):.3f}" for column in zip(*both, strict=True))
                verdicts[pair] = (
                    f"over all {len(both)} images, the {network}'s distance to the teacher, {own}, is not clearly "
                    f"below {name}, {theirs}"
                )
                break
    return verdicts


def nearer(maps: Table, pair: str, network: str, than: str) -> list[float]:
    """For each image that both have: by how much smaller the distance of `network` to the teacher is than `than`'s."""
    distances: dict[str, dict[str, float]] = {network: {}, than: {}}
    for row in maps:
        if row["pair"] == pair and row["network"] in distances and row["distance"] is not None:
            distances[row["network"]][row["image"]] = row["distance"]
    return [distances[than][image] - own for image, own in distances[network].items() if image in distances[than]]


def _below(both: Sequence[tuple[float, float]], seed: int) -> bool:
    low = interval([control - own for own, control in both], seed).low
    return low is not None and low > 0


def _of_maps(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {figure: row[figure] for figure in MAP_FIGURES}


def _of_object(row: Mapping[str, Any]) -> dict[str, float | None]:
    alarm = row["status"] == FALSE_ALARM
    which = [part for part in ((row["status"],) if alarm else (row["size"], row["status"])) if part in PARTS]
    parts = {f"{figure}:{part}": row[BOX_FIGURES[figure]] for figure in IN_PARTS for part in which}
    if alarm:
        return parts
    found = {figure: row[column] for figure, column in BOX_FIGURES.items()}
    if row["pointing"] is None:
        found["pointing_chance"] = None
    return found | parts
