"""Whether the runs of a seed began alike: the same initial weights, the same images in the same order.

Each run's manifest may hold `start`: a digest of the initial weights, and one per epoch of what its loader gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from distill.jobs.benching.recipes import Arm, silent
from distill.jobs.benching.states import DONE, Run

TAKEN = "taken"  # first weights that are parts of a teacher's tensors
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
    """`problems` name arms that began otherwise than the first of their kind, though their recipes do not say so.

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
        alike = "the same initial weights and the same images in the same order"
        return f"paired: yes (within a seed {alike}, but where arms differ on purpose{part})"


def pairing(arms: Sequence[Arm], runs: Iterable[Run]) -> Pairing:
    """What the manifests of the runs that are done say."""
    starts: dict[int, dict[str, Mapping[str, Any]]] = {}
    done = 0
    for run in runs:
        if run.state() == DONE:
            done += 1
            manifest = run.manifest()
            if isinstance(start := manifest.get("start"), dict):
                starts.setdefault(run.seed, {})[run.arm] = {**start, "part of": _part_of(manifest)}
    problems: dict[str, list[str]] = {}
    for seed, of_arm in starts.items():
        for problem, where in _differences(arms, of_arm):
            problems.setdefault(problem, []).append(f"{seed}{where}")
    found = tuple(f"{problem} in seed {', '.join(seeds)}" for problem, seeds in problems.items())
    return Pairing(found, sum(map(len, starts.values())), done)


def _part_of(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The teacher that a run's first weights come from, and whether they were taken or fitted; None if neither."""
    taken = manifest.get("initialised")
    if not taken or taken.get("start") == "own":
        return None
    return (manifest.get("teacher") or {}).get("sha256", ""), taken.get("start", TAKEN)


def _differences(arms: Sequence[Arm], starts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What sets an arm apart from the first one that should have begun as it did, and from which epoch on."""
    there = [arm for arm in arms if arm.name in starts]
    for teacher in dict.fromkeys(start["part of"] for start in starts.values()):  # None: the weights were drawn
        settings = WEIGHTS if teacher is None or teacher[1] == TAKEN else (*WEIGHTS, *DATA)  # fits depend on the images
        alike = [name for name in silent(there, settings) if starts[name]["part of"] == teacher]
        for name in alike[1:]:
            if _weights(starts[alike[0]], starts[name]):
                yield f"{name} begins with other weights than {alike[0]}", ""
    alike = silent(there, DATA)
    for name in alike[1:]:
        if where := _data(starts[alike[0]], starts[name]):
            yield f"{name} sees other images, or in another order, than {alike[0]}", where


def _weights(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether they differ, as far as both are known."""
    return None not in (one := a.get("weights"), two := b.get("weights")) and one != two


def _data(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """From which epoch on; empty where they agree as far as both are known."""
    for epoch, (one, two) in enumerate(zip_longest(a.get("data") or (), b.get("data") or ()), 1):
        if None not in (one, two) and one != two:
            return f" (from epoch {epoch})"
    return ""
