"""What each gate of a U-Net is worth: the Dice as it is, and with a gate's coefficients set to 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from distill.attention.layers import by_role
from distill.attention.maps import AttentionMap
from distill.attention.pairs import GATE
from distill.attention.regions import correlation
from distill.jobs.seeing.intervals import interval

GATE_COLUMNS = ("network", "opened", "dice", "change", "low", "high", "n", "alpha_mean", "alpha_std", "alpha_r")
NONE, ALL = "none", "all"  # what stands under `opened` beside the names of gates


def gate_worth(lookers: Mapping[str, Any], subjects: Iterable[Any], seed: int = 0) -> list[dict[str, Any]]:
    """A row per network and gate (`GATE_COLUMNS`, and `dice/<class>`), of the networks that have gates.

    `subjects` are images with their truth. `opened` says which level's coefficients are 1 throughout, "none" or "all"
    of them; `dice` is the mean over images of that over classes (`n` images, those without foreground of which none is
    found left out, as validation does), `change` that less the Dice as it is, with its 95 % interval
    (`low`, `high`) over the images, paired. alpha_mean, alpha_std (over positions) and alpha_r (correlation with the
    foreground) are means over the images, of the coefficients as they are; a level of several heads has their means.

    A drop says how much this network relies on the gate, not how a network without it would do: what follows the gate
    was trained with it.
    """
    gates = {key: levels for key, looker in lookers.items() if (levels := _levels(looker))}
    if not gates:
        return []
    dice: dict[tuple[str, str], list[dict[str, float]]] = {}
    alphas: dict[tuple[str, str], list[tuple[float, float, float | None]]] = {}
    for subject in subjects:
        for key, levels in gates.items():
            looker = lookers[key]
            opened = {NONE: (), **levels, **({ALL: sum(levels.values(), ())} if len(levels) > 1 else {})}
            for name, roles in opened.items():
                found = looker.dice(looker.predict(subject.images, roles), subject.truth)
                dice.setdefault((key, name), []).append(found)
            for name, told in _coefficients(looker, levels, subject).items():
                alphas.setdefault((key, name), []).extend(told)
    return [
        _row(key, name, cases, dice[key, NONE], alphas.get((key, name), ()), seed)
        for (key, name), cases in dice.items()
    ]


def _levels(looker: Any) -> dict[str, tuple[str, ...]]:
    """The gates by level, "G2", each with the roles of its heads."""
    levels: dict[str, tuple[str, ...]] = {}
    for role in by_role(looker.layers):
        if role.startswith(GATE):
            level = role.split(".")[0]
            levels[level] = (*levels.get(level, ()), role)
    return levels


def _coefficients(
    looker: Any, levels: Mapping[str, Sequence[str]], subject: Any
) -> dict[str, list[tuple[float, float, float | None]]]:
    roles = {role: layer.name for role, layer in by_role(looker.layers).items()}
    names = [roles[role] for heads in levels.values() for role in heads]
    features = looker.features(subject.images, names)
    found: dict[str, list[tuple[float, float, float | None]]] = {}
    for level, heads in levels.items():
        for name in (roles[role] for role in heads):
            values = AttentionMap.read(features[name], name, "gate").values[0].cpu().numpy()
            r = correlation(values, looker.lattices[name], subject.truth > 0)
            found.setdefault(level, []).append((float(values.mean()), float(values.std()), r))
    return found


def _row(
    key: str,
    name: str,
    cases: Sequence[Mapping[str, float]],
    before: Sequence[Mapping[str, float]],
    alphas: Sequence[tuple[float, float, float | None]],
    seed: int,
) -> dict[str, Any]:
    means = [fmean(case.values()) for case in cases if case]
    row: dict[str, Any] = dict.fromkeys(GATE_COLUMNS)
    row |= {"network": key, "opened": name, "dice": fmean(means) if means else None, "n": len(means)}
    both = [
        (fmean(case.values()), fmean(was.values())) for case, was in zip(cases, before, strict=True) if case and was
    ]
    if name != NONE and both:
        change = interval([opened - was for opened, was in both], seed)
        row |= {"change": change.mean, "low": change.low, "high": change.high}
    for column, values in zip(("alpha_mean", "alpha_std", "alpha_r"), zip(*alphas, strict=True), strict=False):
        known = [value for value in values if value is not None]
        row[column] = fmean(known) if known else None
    classes = dict.fromkeys(one for case in cases for one in case)
    return row | {f"dice/{one}": fmean(case[one] for case in cases if one in case) for one in classes}
