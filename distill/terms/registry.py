"""Which ways of teaching this process knows: ours, and those that a user wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module

from distill.errors import InputError
from distill.settings import Settings
from distill.terms.attention import Attention
from distill.terms.features import Features
from distill.terms.gates import Gates
from distill.terms.logits import Logits
from distill.terms.method import Method, Planned
from distill.terms.paired import PairedTerm
from distill.terms.response import Response
from distill.text import one_line

METHODS: tuple[Method, ...] = (Attention(), Features(), Response(), Gates(), Logits())
NAMED = "DISTILL_TERMS"  # tells the processes that are started for further devices where a user's own are found
OUTPUTS = ("classes", "boxes", "classes_one", "boxes_one")  # names of terms that are not their method's
_own: list[Method] = []  # of a user, while a run of theirs goes on
Plans = Mapping[str, Planned]  # by the method's name


def methods() -> tuple[Method, ...]:
    """All that this process knows."""
    return (*METHODS, *_own)


@contextmanager
def with_own(own: Sequence[Method]) -> Iterator[None]:
    """Within it, runs are taught by a user's own methods too. Raises InputError for what is none, or a taken name."""
    taken = {*(method.name for method in METHODS), *Settings.__dataclass_fields__, *OUTPUTS}
    for method in own:
        if not isinstance(method, Method):
            raise InputError(f"terms: {method!r} is no term: give an instance of a class of distill.PairedTerm's")
        if method.name in taken:
            raise InputError(f"the term's name '{method.name}' is taken: give it another")
        taken.add(method.name)
    before = os.environ.get(NAMED)
    _own[:] = own
    os.environ[NAMED] = ",".join(map(_place, own))
    try:
        yield
    finally:
        _own.clear()
        os.environ.pop(NAMED)
        if before is not None:
            os.environ[NAMED] = before


def _place(method: Method) -> str:
    return f"{type(method).__module__}:{type(method).__qualname__}"


def find_term(name: str) -> type[PairedTerm]:
    """The class that `package.module:Name` means. Raises InputError where there is none."""
    module, colon, inside = name.partition(":")
    if not colon:
        raise InputError(f"--term {name}: write it as package.module:Name")
    try:
        found = getattr(import_module(module), inside)
    except Exception as error:  # whatever a user's file does
        raise InputError(f"--term {name}: {one_line(error)}") from error
    if not (isinstance(found, type) and issubclass(found, PairedTerm) and hasattr(found, "name")):
        raise InputError(f"--term {name}: it is no term: derive it from distill.PairedTerm, and give it a name")
    return found


def check_importable() -> None:
    """Raise InputError for a user's own method that a process for a further device could not import."""
    for method in _own:
        if type(method).__module__ == "__main__" or "." in type(method).__qualname__:
            raise InputError(f"the term '{method.name}' is trained on several devices: put it in a file of its own")


def check_resumed(plans: Plans) -> None:
    """Raise InputError where a run that goes on is not taught by just those of a user's own that it began with.

    Those take the settings that they had.
    """
    for number, method in enumerate(_own):
        if method.name not in plans:
            raise InputError(f"the run that goes on was not taught by the term '{method.name}': leave it out")
        _own[number] = method.as_planned(plans[method.name])
    known_methods(plans)


def known_methods(plans: Plans) -> list[Method]:
    """The methods of these plans. Raises InputError for a user's own that this process was not told of."""
    for name in plans.keys() - {method.name for method in methods()}:
        for place in filter(None, os.environ.get(NAMED, "").split(",")):  # in a process for a further device
            if (found := find_term(place)).name == name:
                _own.append(found(**plans[name]["settings"]))
                break
        else:
            raise InputError(f"this run is taught by a term of your own, '{name}': name it again with --term")
    return [method.as_planned(plans[method.name]) for method in methods() if plans.get(method.name)]
