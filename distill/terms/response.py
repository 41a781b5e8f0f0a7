"""What a detection head says, class scores and boxes, taught cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.ranges import USUAL
from distill.settings import Settings
from distill.terms.base import Term
from distill.terms.boxes import BoxTerm, DistributionTerm
from distill.terms.classes import ClassTerm
from distill.terms.dense import Shared
from distill.terms.method import Figures, Head, Method, Networks, Planned
from distill.text import Table, figure

BOXES = "boxes"
FIGURES = {
    "agree_cls": ("class scores", "share of cells with the same best class"),
    "iou_box": ("boxes", "mean IoU"),
    "agree_cls_one": ("class scores, one per object", "share of cells with the same best class"),
    "iou_box_one": ("boxes, one per object", "mean IoU"),
}


class Response(Method):
    """A detection head's outputs: class scores by one of four losses, and boxes."""

    name = "response"
    options = ("response", "response_weight", "response_share", "temperature")
    weight_option, share_option = "response_weight", "response_share"
    kinds = ("detector",)

    def asked(self, settings: Settings) -> bool:
        return bool(settings.response)

    def idle(self, settings: Settings) -> Sequence[str]:
        given = {"response": settings.response not in ((), USUAL)}
        given |= {name: getattr(settings, name) is not None for name in ("response_weight", "response_share")}
        return [name for name, is_given in given.items() if is_given]

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        """By default as many losses as both heads have outputs for."""
        if not settings.response or settings.teacher is None:
            return {}, ()
        if settings.response != USUAL:
            return _planned(settings, settings.response, networks), ()
        lacking: tuple[str, ...] = ()
        for losses, rest in ((("bce", BOXES), "boxes"), (("bce",), "outputs")):
            try:
                return _planned(settings, losses, networks), lacking
            except InputError as error:
                lacking = (f"{rest} of the heads are left out: {error}",)
        for name in ("response_weight", "response_share"):
            if getattr(settings, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} has no effect: {lacking[0]}")
        return {}, lacking

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        shared, bins = Shared(*map(tuple, planned["shared"])), tuple(planned["bins"])
        terms: list[Term] = []
        for branch in planned["branches"]:
            classes, boxes = ([Pair(**pair) for pair in branch[key]] for key in ("classes", "boxes"))
            where = branch["at"], branch["name"]
            for form in planned["losses"]:
                if form != BOXES:
                    terms.append(ClassTerm(classes, form, settings["temperature"], shared, *where))
                    continue
                scores = [pair.teacher for pair in classes]
                kind = DistributionTerm if bins[0] == bins[1] > 1 else BoxTerm
                terms.append(kind(boxes, scores, bins, shared.teacher, *where))
        return terms

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        rows = [("output", "what", "before", "after")]
        rows += [(*words, figure(before[key]), figure(after[key])) for key, words in FIGURES.items() if key in after]
        return Table(rows, "on validation images, at the cells where the teacher is confident")


def _planned(settings: Settings, losses: Sequence[str], networks: Networks) -> Planned:
    assert networks.head is not None
    head: Head = networks.head()
    if BOXES in losses and not head.bins[0] == head.bins[1] > 1 and not head.upright:
        raise InputError(
            f"--response boxes: {networks.task} boxes are compared by their distributions, and there are none alike"
        )
    if settings.teacher_imgsz is not None:
        raise InputError("--response compares cell by cell, on one grid: leave out --teacher-imgsz")
    alone = len(networks.names) == len(networks.known) == 1  # one class each is the same class, whatever its name
    shared = Shared((0,), (0,)) if alone else Shared.by_name(networks.names, networks.known)
    if networks.kept:
        shared = shared.only(networks.kept)
    return {
        "losses": list(losses),
        "branches": [dict(branch) for branch in head.branches],
        "bins": list(head.bins),
        "shared": [list(shared.student), list(shared.teacher)],
    }
