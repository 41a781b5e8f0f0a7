"""Ask whether a pairing would distil, before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.errors import InputError
from distill.jobs.training import resolved
from distill.loading import adapter_for
from distill.proof import Check
from distill.records import command_line
from distill.terms.method import Method
from distill.terms.registry import with_own


def doctor(config: str | None = None, terms: Sequence[Method] = (), **values: Any) -> tuple[Check, ...]:
    """Every check that precedes training, on the real data; takes what `train` takes. Nothing is written.

    Distillation would work when all are `ok`; a `warning` stops nothing. Raises InputError for what cannot be used.
    """
    settings, arguments = resolved(config, values)
    if not settings.teacher and settings.gates != "truth":
        raise InputError("--teacher is missing: doctor checks what a teacher would bring")
    adapter = adapter_for(settings)
    with with_own(terms):
        prepared = adapter.plan(settings, arguments, command_line())
        print("\n".join((*prepared.lines, "checking on the real data, with copies; nothing is kept ...")), flush=True)
        checks: tuple[Check, ...] = tuple(adapter.doctor(prepared))
    return checks
