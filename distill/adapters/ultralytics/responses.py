"""What a run transfers of a head's outputs, and where its attention counts: checked, and turned into terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from distill.adapters.ultralytics.anatomy import anatomy
from distill.adapters.ultralytics.heads import BRANCHES, Output, as_pairs, bins_of, output_pairs, outputs_of
from distill.adapters.ultralytics.supervision import teaches
from distill.attention.layers import LayerInfo
from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.ranges import NO_PAIRS, USUAL
from distill.settings import Settings
from distill.terms.base import Term
from distill.terms.boxes import BoxTerm, DistributionTerm
from distill.terms.classes import ClassTerm
from distill.terms.dense import Shared
from distill.terms.focus import BoxFocus, Focus, ScoreFocus

BOXES = "boxes"
ONE = "_one"  # ends the names of what is of the branch that answers once for each object
DISTANCES_ONLY = ("detect", "segment", "pose")  # tasks whose boxes are upright: four distances say all


def planned_response(
    settings: Settings,
    student: Any,
    names: Sequence[str],
    teacher: Any,
    known: Sequence[str],
    task: str,
    kept: Collection[int] = (),
) -> dict[str, Any]:
    """`own["outputs"]`, in plain types: which modules are compared, and which classes mean the same; {} for none.

    `student` and `teacher` are the networks, `names` and `known` their classes, `kept` the numbers of those that the
    student is trained on (all, if none are given). Raises InputError for a head without such outputs, and for class
    lists that share nothing.
    """
    if not settings.response:
        return {}
    both = output_pairs(student, teacher)
    bins = bins_of(student), bins_of(teacher)
    if BOXES in settings.response and not bins[0] == bins[1] > 1 and task not in DISTANCES_ONLY:
        raise InputError(
            f"--response boxes: {task} boxes are compared by their distributions, and there are none alike"
        )
    if settings.teacher_imgsz is not None:
        raise InputError("--response compares cell by cell, on one grid: leave out --teacher-imgsz")
    alone = len(names) == len(known) == 1  # one class each is the same class, whatever its name
    shared = Shared((0,), (0,)) if alone else Shared.by_name(names, known)
    if kept:
        shared = shared.only(kept)
    return {
        "branches": [_branch(name, both, student) for name in BRANCHES if any(mine.branch == name for mine, _ in both)],
        "bins": list(bins),
        "shared": [list(shared.student), list(shared.teacher)],
    }


def _branch(name: str, both: Sequence[tuple[Output, Output]], student: Any) -> dict[str, Any]:
    """The outputs of one branch, each a term of its own, and the layers where these are weighed against the task.

    What a head reads, or, in a branch that lets no gradient out to it, the branch's first blocks.
    """
    of_it = [pair for pair in both if pair[0].branch == name]
    first = [f"{part}.0" for mine, _ in of_it for part in (mine.classes, mine.boxes)]
    return {
        "name": ONE if name else "",
        "classes": [asdict(pair) for pair in as_pairs(of_it, "classes")],
        "boxes": [asdict(pair) for pair in as_pairs(of_it, "boxes")],
        "at": first if name else list(anatomy(student).head_inputs),
    }


def settled_response(
    settings: Settings,
    student: Any,
    names: Sequence[str],
    teacher: Any,
    known: Sequence[str],
    task: str,
    kept: Collection[int] = (),
) -> tuple[Settings, dict[str, Any], tuple[str, ...]]:
    """The settings with `--response auto` turned into losses, `own["outputs"]`, and a line where something is left out.

    `auto` becomes as many losses as both heads have outputs for. Arguments are as in `planned_response`, `teacher` None
    where there is none. Raises InputError for losses that were asked for and cannot be.
    """
    if teacher is None:
        return (replace(settings, response=()) if settings.response == USUAL else settings), {}, ()
    if settings.response != USUAL:
        return settings, planned_response(settings, student, names, teacher, known, task, kept), ()
    lacking: tuple[str, ...] = ()
    for response, rest in ((("bce", BOXES), "boxes"), (("bce",), "outputs")):
        asked = replace(settings, response=response)
        try:
            return asked, planned_response(asked, student, names, teacher, known, task, kept), lacking
        except InputError as error:
            lacking = (f"{rest} of the heads are left out: {error}",)
    for name in ("response_weight", "response_share"):
        if getattr(settings, name) != getattr(Settings, name):
            raise InputError(f"--{name.replace('_', '-')} has no effect: {lacking[0]}")
    return replace(settings, response=()), {}, lacking


def response_terms(own: Mapping[str, Any]) -> list[Term]:
    """The terms of a run's settings that compare outputs."""
    outputs = own.get("outputs")
    if not outputs:
        return []
    shared, bins = Shared(*map(tuple, outputs["shared"])), tuple(outputs["bins"])
    terms: list[Term] = []
    for branch in outputs["branches"]:
        classes, boxes = ([Pair(**pair) for pair in branch[key]] for key in ("classes", "boxes"))
        where = branch["at"], branch["name"]
        for form in own["response"]:
            if form != BOXES:
                terms.append(ClassTerm(classes, form, own["temperature"], shared, *where))
                continue
            scores = [pair.teacher for pair in classes]
            kind = DistributionTerm if bins[0] == bins[1] > 1 else BoxTerm
            terms.append(kind(boxes, scores, bins, shared.teacher, *where))
    return terms


def planned_focus(
    settings: Settings, pairs: Sequence[Pair], teacher: Any, layers: Sequence[LayerInfo]
) -> dict[str, str]:
    """For each pair, the teacher's class scores of its level, or of the nearest one; {} where no focus needs them."""
    if settings.focus != "teacher":
        return {}
    scores = {output.level: output.classes for output in reversed(outputs_of(teacher))}
    if not scores:
        raise InputError("--focus teacher needs class scores cell by cell: the teacher's head has none")
    levels = {layer.name: layer.level for layer in layers}
    return {pair.name: scores[min(scores, key=lambda k: abs(k - levels[pair.teacher]))] for pair in pairs}


def focus_of(own: Mapping[str, Any]) -> Focus | None:
    """The focus of a run's settings."""
    asked = own.get("focus", "none")
    if asked == "none":
        return None
    return BoxFocus() if asked == "boxes" else ScoreFocus(own["scores"])


def check_recipe(settings: Settings, task: str, boxless: Sequence[str], tried: bool) -> None:
    """Raise InputError for options that would have no effect, or that the task cannot have; features may be `tried`."""
    if settings.focus == "boxes" and task in boxless:
        raise InputError(f"--focus boxes: {task} has no labelled boxes")
    if settings.stop_with_mosaic and task == "classify":
        raise InputError("--stop-with-mosaic has no effect: classify trains without mosaic")
    if settings.teacher and teaches(settings):
        all_fixed = settings.weight is not None or settings.layers == NO_PAIRS
        all_fixed &= settings.features_weight is not None or not (tried or settings.named_features)
        all_fixed &= settings.response_weight is not None or not settings.response
        all_fixed &= settings.gates_weight is not None or settings.gates == "none"
        if settings.hold and all_fixed:
            raise InputError("--hold has no effect: all weights are fixed")
        return
    idle = {
        "focus": settings.focus != "none",
        "features": bool(settings.named_features),
        "response": bool(settings.response),
        "shuffled": settings.shuffled,
        "hold": settings.hold,
        "teacher_fraction": settings.teacher_fraction < 1,
        "teacher_imgsz": settings.teacher_imgsz is not None,
    }
    if settings.gates != "truth":  # gates that follow the labels are distilled without a teacher
        scheduled = settings.schedule != "constant"
        idle |= {"schedule": scheduled, "warmup": settings.warmup > 0, "stop_with_mosaic": settings.stop_with_mosaic}
    for name, given in idle.items():
        if given:
            option = name.replace("_", "-")
            instead = "leave it out" if settings.teacher else "name a teacher, or leave it out"
            why = "a teacher that only gives the first weights" if settings.teacher else "no --teacher"
            raise InputError(f"--{option} has no effect with {why}: {instead}")
