"""The figures behind the pictures: how alike maps are, against which controls, and how far they attend to objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.attention.maps import AttentionMap, meet
from distill.attention.measures import cosine, distance, effective_area, likeness
from distill.attention.regions import correlation, focus_on
from distill.jobs.seeing.intervals import MAP_FIGURES, NEARER, interval, nearer, silent_pairs, summarise
from distill.jobs.seeing.object_figures import object_rows
from distill.view.exhibit import BASELINE, STUDENT, TRUTH, Exhibit, Numbers, Row, Sample

MAP_COLUMNS = ("image", "pair", "network", *MAP_FIGURES)
STRANGERS = 8  # other images that a map is held against: their mean is steady, and the time stays linear in the images


def figures(
    exhibit: Exhibit, untrained: Mapping[str, Mapping[str, np.ndarray]] | None = None, seed: int = 0
) -> Numbers:
    """Every figure of an exhibit; its own `numbers` are not looked at.

    `untrained[sample.name][row.name]` is the map (h, w) of a student that was never trained; what is absent has no
    figures. `seed` picks the images to shuffle with and the bootstrap's resamples.

    `maps` has a row per image, pair and network other than the teacher, about whole maps, the letterbox's border
    included, as the loss sees them:
    - distance, cosine, spearman, overlap: to the teacher's map, see `distill.attention.measures`;
    - area, reference_area: the effective area of the network's and of the teacher's map, on the grid where they meet;
    - shuffled_distance, shuffled_cosine: to the teacher's maps of other images (a mean over up to `STRANGERS`);
    - flat_distance, flat_cosine: of a map that is everywhere alike to the teacher's (not for gates);
    - untrained_distance, untrained_cosine: of the untrained student to the teacher.
    - where the truth is a mask: foreground_energy, foreground_share, foreground_ratio: the part of the map's energy in
      the foreground, the foreground's part of the image, and their ratio, 1 if the map ignores it;
    - of gates: alpha_mean and alpha_std over the positions, alpha_r: the correlation with the foreground.
    A single network has only its area and what follows it, and so has one whose layer the teacher lacks; a layer that
    the network lacks has no row.

    `objects`: see `object_figures`. `summary` and `silent`: see `intervals`; the teacher's own figures, its area on its
    own grid among them, are in the summary alone; `nearer` is the student's, where there is a baseline: by how much
    nearer to the teacher it lies, paired by image; `silent` is about the student, `silent_baseline` about the baseline.
    """
    reference = exhibit.reference
    maps = tuple(_map_rows(exhibit, untrained or {}, seed))
    objects = tuple(row for sample in exhibit.samples for row in object_rows(exhibit, sample))
    pairs, networks = [row.name for row in exhibit.rows], [network.key for network in exhibit.networks]
    if reference is None:
        return Numbers(maps, objects, summarise(maps, objects, pairs, networks, seed))
    summary = summarise((*maps, *_areas(exhibit, reference.key)), objects, pairs, networks, seed)
    for pair in pairs:
        if gains := nearer(maps, pair, STUDENT, BASELINE):
            summary[pair][STUDENT][NEARER] = interval(gains, seed)
    judged = STUDENT if STUDENT in networks else exhibit.others[0].key
    silent = [silent_pairs(maps, pairs, network, seed) for network in (judged, BASELINE)]
    return Numbers(maps, objects, summary, silent[0], silent[1] if judged != BASELINE else {})


def _map_rows(exhibit: Exhibit, untrained: Mapping[str, Mapping[str, np.ndarray]], seed: int) -> Iterator[dict]:
    rng = np.random.default_rng(seed)
    for sample in exhibit.samples:
        others = [other for other in exhibit.samples if other is not sample]
        strangers = [others[i] for i in rng.permutation(len(others))[:STRANGERS]]
        for row in exhibit.rows:
            initial = untrained.get(sample.name, {}).get(row.name)
            for network in exhibit.others:
                if network.key not in row.sides:
                    continue
                mine = _attention(sample, row, network.key)
                found = {"area": effective_area(mine)}
                if exhibit.reference is not None and exhibit.reference.key in row.sides:
                    theirs = _attention(sample, row, exhibit.reference.key)
                    found = _likeness(mine, theirs)
                    if strangers:
                        shuffled = [_attention(other, row, exhibit.reference.key) for other in strangers]
                        found |= _control("shuffled", mine, shuffled, theirs.size)
                    if row.kind == "energy":
                        level = AttentionMap(torch.ones_like(theirs.values), mine.layer, mine.kind)
                        found |= _control("flat", level, [theirs], mine.size)
                    if initial is not None:
                        found |= _control("untrained", _placed(initial, row, network.key), [theirs], theirs.size)
                yield _map_row(sample, row, network.key, found)


def _areas(exhibit: Exhibit, key: str) -> Iterator[dict]:
    """Rows of maps for one network, with what it has without another."""
    for sample in exhibit.samples:
        for row in (row for row in exhibit.rows if key in row.sides):
            yield _map_row(sample, row, key, {"area": effective_area(_attention(sample, row, key))})


def _own(sample: Sample, row: Row, key: str) -> dict[str, float | None]:
    """Where one network's map lies: on the foreground of the truth, if it is known; of a gate also its coefficients."""
    values, lattice = sample.maps[row.name][key], sample.lattice(row, key)
    truth = sample.masks.get(TRUTH)
    found: dict[str, float | None] = {}
    if truth is not None:
        on = focus_on(values, lattice, truth > 0)
        found |= {"foreground_energy": on.energy, "foreground_share": on.share, "foreground_ratio": on.ratio}
    if row.kind == "gate":
        found |= {"alpha_mean": float(values.mean()), "alpha_std": float(values.std())}
        found["alpha_r"] = None if truth is None else correlation(values, lattice, truth > 0)
    return found


def _likeness(mine: AttentionMap, theirs: AttentionMap) -> dict[str, Tensor]:
    mine, theirs = meet(mine, theirs)
    areas = {"area": effective_area(mine), "reference_area": effective_area(theirs)}
    return likeness(theirs, mine) | areas


def _control(name: str, mine: AttentionMap, theirs: Sequence[AttentionMap], size: tuple[int, ...]) -> dict[str, Tensor]:
    """Distance and cosine to each of `theirs`, brought to `size`: on a finer grid unrelated maps lie farther apart."""
    several = AttentionMap(torch.cat([other.resize(size).values for other in theirs]), mine.layer, mine.kind)
    repeated = AttentionMap(mine.values.expand(len(theirs), *mine.size), mine.layer, mine.kind)
    repeated, several = meet(repeated, several)
    return {f"{name}_distance": distance(repeated, several), f"{name}_cosine": cosine(repeated, several)}


def _map_row(sample: Sample, row: Row, key: str, found: Mapping[str, Tensor]) -> dict[str, Any]:
    head = {"image": sample.name, "pair": row.name, "network": key}
    figures = {figure: _plain(value) for figure, value in found.items()}
    return dict.fromkeys(MAP_COLUMNS) | head | figures | _own(sample, row, key)


def _attention(sample: Sample, row: Row, key: str) -> AttentionMap:
    return _placed(sample.maps[row.name][key], row, key)


def _placed(values: np.ndarray, row: Row, key: str) -> AttentionMap:
    return AttentionMap(torch.from_numpy(values.astype(np.float32))[None], row.sides[key].layer, row.kind)


def _plain(figures: Tensor) -> float | None:
    """The mean of those that exist."""
    value = figures.nanmean().item()
    return value if math.isfinite(value) else None
