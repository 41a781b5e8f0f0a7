"""What a run makes of all ways of teaching together: plans, checks, terms, weights, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from distill.errors import InputError
from distill.settings import Settings
from distill.terms.base import Term
from distill.terms.method import Figures, Method, Networks, Planned
from distill.terms.registry import Plans, known_methods, methods


def plan_all(settings: Settings, networks: Networks) -> tuple[dict[str, Planned], tuple[str, ...]]:
    """What each method teaches in such a run, by name, and lines that say what is left out. Raises InputError."""
    found = {method.name: method.plan(settings, networks) for method in methods() if networks.kind in method.kinds}
    lines = tuple(line for _, more in found.values() for line in more)
    return {name: planned for name, (planned, _) in found.items() if planned}, lines


def teaches(settings: Settings) -> bool:
    """Do these settings ask the teacher for anything but the student's first weights?"""
    return any(method.asked(settings) for method in methods())


def check_idle(settings: Settings, kind: str) -> None:
    """Raise InputError for options that students of this kind, "detector" or "unet", lack, and for those of no effect.

    Without a teacher, or with one that only gives first weights, options of teaching have none.
    """
    for method in methods():
        method.refuse(settings, kind)
    if settings.teacher and teaches(settings):
        return
    idle = [name for method in methods() for name in method.idle(settings)]
    common = ["shuffled", "hold", "teacher_imgsz"]
    if settings.gates != "truth":  # gates that follow the labels are distilled without a teacher
        common += ["schedule", "warmup", "stop_with_mosaic", "teacher_fraction"]
    for name in (*idle, *(name for name in common if getattr(settings, name) != getattr(Settings, name))):
        instead = "leave it out" if settings.teacher else "name a teacher, or leave it out"
        why = "a teacher that only gives the first weights" if settings.teacher else "no --teacher"
        raise InputError(f"--{name.replace('_', '-')} has no effect with {why}: {instead}")


def check_terms(plans: Plans, settings: Mapping[str, Any]) -> None:
    """Raise InputError where two ways guide one map of the student's, or bear one name in the log."""
    guided: dict[str, Term] = {}
    named: dict[str, Term] = {}
    for term in terms_of(plans, settings):
        for pair in (*term.maps, *term.alphas):
            other = guided.setdefault(pair.student, term)
            if other is not term:
                both = f"{other.title} and {term.title}"
                raise InputError(f"{both} both guide the student's {pair.student}: once is enough")
        for name in (term.name, *term.columns):
            if named.setdefault(name, term) is not term:
                raise InputError(
                    f"'{name}' is in the log twice, of {named[name].name} and {term.name}: rename the term"
                )


def planned_methods(plans: Plans) -> Iterator[tuple[Method, Planned]]:
    """The methods that a run teaches by, with what each was planned to."""
    yield from ((method, plans[method.name]) for method in known_methods(plans))


def terms_of(plans: Plans, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
    """What a run compares; an `audit` never shuffles, but tells what gates have of the teacher they were denied."""
    return [term for method, planned in planned_methods(plans) for term in method.terms(planned, settings, audit)]


def fixed_of(plans: Plans, settings: Mapping[str, Any]) -> dict[str, float | None]:
    """For each term the weight that was given; None where it is to be measured."""
    return _for_each(plans, settings, lambda method: method.fixed_weight(settings))


def shares_of(plans: Plans, settings: Mapping[str, Any]) -> dict[str, float]:
    """For each term the share of the task's gradient that it is to have."""
    return _for_each(plans, settings, lambda method: method.wanted_share(settings))


def asks_teacher(plans: Plans) -> bool:
    """Is the teacher read while the student trains? It is not where it only gives first weights."""
    return any(method.asks_teacher(planned) for method, planned in planned_methods(plans))


def tables_of(plans: Plans, before: Figures, after: Figures) -> list[dict[str, Any]]:
    """What came of each method, as tables in plain types."""
    tables = [method.table(planned, before, after) for method, planned in planned_methods(plans)]
    return [asdict(table) for table in tables if table is not None]


def _for_each(plans: Plans, settings: Mapping[str, Any], value: Any) -> dict[str, Any]:
    return {
        term.name: value(method)
        for method, planned in planned_methods(plans)
        for term in method.terms(planned, settings)
    }
