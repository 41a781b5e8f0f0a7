"""Which layers of U-Nets are shown: level by level, also those that only some of the networks have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from distill.attention.layers import LayerInfo, by_role
from distill.attention.pairs import GATE, ROLE, Pair
from distill.errors import InputError
from distill.jobs.seeing.gathering import Paired, pair_rows
from distill.view.exhibit import BASELINE, STUDENT, TEACHER

ABOUT = {
    "E": "skip of level {}, from the encoder",
    "G": "gate of level {}: alpha",
    "X": "skip of level {}, after its gate",
    "D": "decoder, level {}",
}
Roles = Mapping[str, Mapping[str, LayerInfo]]  # by network and role
ORDER = "EGXD"  # within a level: the skip, its gate, what the gate lets through, the decoder


def level_rows(layers: Mapping[str, Sequence[LayerInfo]], patterns: Sequence[str] = ()) -> Paired:
    """A row for each role, with the layer of every network that has it.

    Without patterns: the decoder (D) of every level, and where some network has gates also the skips (E), the gates'
    coefficients (G) and what they let through (X). A pattern that is a role or a glob of roles, such as G*,
    takes what any of the networks has; every other pattern pairs layers as in training (`pair_layers`). Raises
    InputError for what is found in none.
    """
    roles: Roles = {key: by_role(found) for key, found in layers.items()}
    known = sorted({role for found in roles.values() for role in found}, key=_place)
    if not patterns:
        decoded = {_level(role) for role in known if role[0] == "D"}  # the deepest level has no skip
        letters = ORDER if any(role.startswith(GATE) for role in known) else "D"
        patterns = [role for role in known if role[0] in letters and _level(role) in decoded]
    rows: dict[str, tuple[Pair, Mapping[str, LayerInfo]]] = {}
    for pattern in patterns:
        matched = [role for role in known if fnmatchcase(role, pattern.upper())]
        found = list(_rows(roles, matched)) if matched else _paired(layers, pattern)
        for pair, sides in found:
            if pair.name in rows:
                raise InputError(f"--layers: {pair.name} is named twice")
            rows[pair.name] = pair, sides
    return list(rows.values())


def _rows(roles: Roles, names: Sequence[str]) -> Iterator[tuple[Pair, Mapping[str, LayerInfo]]]:
    for role in names:
        sides = {key: found[role] for key, found in roles.items() if role in found}
        first = next(iter(sides.values()))
        mine, theirs = sides.get(STUDENT, first), sides.get(TEACHER, first)
        kind = "gate" if role.startswith(GATE) else "energy"
        yield Pair(role, mine.name, theirs.name, kind=kind), sides  # type: ignore[arg-type]


def _paired(layers: Mapping[str, Sequence[LayerInfo]], pattern: str) -> Paired:
    """As in training; without a teacher, a baseline's layers with the student's."""
    if TEACHER in layers or BASELINE not in layers:
        return pair_rows(layers, [pattern])
    names = {TEACHER: STUDENT, STUDENT: BASELINE}
    rows = pair_rows({theirs: layers[mine] for theirs, mine in names.items()}, [pattern])
    return [
        (replace(pair, student=pair.teacher), {names[key]: side for key, side in sides.items()}) for pair, sides in rows
    ]


def about(role: str) -> str:
    """What a row of this name shows, in words; empty for a pair that is not named by its role."""
    return ABOUT[role[0]].format(role[1:]) if ROLE.fullmatch(role) and role[0] in ABOUT else ""


def _level(role: str) -> int:
    return int(role[1:].split(".")[0])


def _place(role: str) -> tuple[int, int, str]:
    return _level(role), ORDER.find(role[0]), role
