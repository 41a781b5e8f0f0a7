"""Whether the runs of a seed began alike: the same initial weights, the same images in the same order.

Each run's manifest may hold `start`: a digest of the initial weights, and one per epoch of what its loader gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from distill.jobs.benching.recipes import Arm
from distill.jobs.benching.states import DONE, Run

WEIGHTS = ("student", "model", "pretrained", "gated_neck", "freeze")  # settings that change initial weights
DATA = (  # settings that change which images come when, and how they look
    *(
        "data",
        "batch",
        "imgsz",
        "epochs",
        "time",
        "fraction",
        "workers",
        "rect",
        "multi_scale",
        "single_cls",
        "classes",
        "compile",
        "augmentations",
    ),
    *("close_mosaic", "mosaic", "mixup", "cutmix", "copy_paste", "copy_paste_mode", "auto_augment", "erasing"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr"),
)


@dataclass(frozen=True)
class Pairing:
    """`problems` name arms that began otherwise than the first, though their recipes do not say so.

    `known` is the number of runs whose start was recorded, `runs` that of all that are done.
    """

    problems: tuple[str, ...]
    known: int
    runs: int

    def __str__(self) -> str:
        if not self.known:
            return "paired: not known (the runs recorded neither initial weights nor the order of the images)"
        if self.problems:
            return "paired: no: " + "; ".join(self.problems)
        part = "" if self.known == self.runs else f", as far as it was recorded, in {self.known} of {self.runs} runs"
        return f"paired: yes (within a seed the same initial weights and the same images in the same order{part})"


def pairing(arms: Sequence[Arm], runs: Iterable[Run]) -> Pairing:
    """What the manifests of the runs that are done say."""
    starts: dict[int, dict[str, Mapping[str, Any]]] = {}
    done = 0
    for run in runs:
        if run.state() == DONE:
            done += 1
            manifest = run.manifest()
            if isinstance(start := manifest.get("start"), dict):
                teacher = (manifest.get("teacher") or {}).get("sha256", "") if manifest.get("initialised") else None
                starts.setdefault(run.seed, {})[run.arm] = {**start, "part of": teacher}
    found = [
        problem
        for what, keys, kind, differ in (
            ("begins with other weights", WEIGHTS, "part of", _weights),
            ("sees other images, or in another order,", DATA, None, _data),
        )
        for problem in _problems([arm for arm in arms if not set(keys) & _keys(arm)], starts, what, kind, differ)
    ]
    return Pairing(tuple(found), sum(map(len, starts.values())), done)


def _problems(
    arms: Sequence[Arm], starts: Mapping[int, Mapping[str, Any]], what: str, kind: str | None, differ: Any
) -> list[str]:
    """Each arm is set against the first one of its `kind`, an entry of the start; all are of one kind for None."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for seed, of_arm in starts.items():
        there = [arm.name for arm in arms if arm.name in of_arm]
        for arm in there:
            first = next(name for name in there if kind is None or of_arm[name][kind] == of_arm[arm][kind])
            if where := differ(of_arm[first], of_arm[arm]):
                seeds.setdefault((arm, first), []).append(f"{seed}{where if where != '=' else ''}")
    return [f"{arm} {what} than {first} in seed {', '.join(where)}" for (arm, first), where in seeds.items()]


def _weights(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return "=" if None not in (one := a.get("weights"), two := b.get("weights")) and one != two else ""


def _data(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """From which epoch on; empty where they agree as far as both are known."""
    for epoch, (one, two) in enumerate(zip_longest(a.get("data") or (), b.get("data") or ()), 1):
        if None not in (one, two) and one != two:
            return f" (from epoch {epoch})"
    return ""


def _keys(arm: Arm) -> set[str]:
    return {key.replace("-", "_") for key in arm.recipe}
