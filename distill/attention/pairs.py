"""Which layer of the teacher guides which layer of the student."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from distill.attention.layers import LayerInfo, by_role, resolve
from distill.attention.maps import Kind
from distill.errors import InputError
from distill.text import nearest

ROLE = re.compile(r"[A-Z]\d+(\.\d+)?")
USUAL = ("P", "B", "D", "E")  # roles that are paired by default: the first letter of which both networks have some
GATE = "G"
COLUMN = 10  # widest column of the trainer's progress bar; longer names run into each other


@dataclass(frozen=True)
class Pair:
    """A student layer and the teacher layer it learns from, by dotted module names.

    `name` is short and gives the log column `at_<name>`; `weight` multiplies this pair's loss relative to the others.
    """

    name: str
    student: str
    teacher: str
    weight: float = 1.0
    kind: Kind = "energy"

    @property
    def column(self) -> str:
        return f"at_{self.name}"


def pair_layers(student: Sequence[LayerInfo], teacher: Sequence[LayerInfo], patterns: Sequence[str] = ()) -> list[Pair]:
    """Pairs from what the user wrote; by role and measured stride, never by index.

    A pattern is a role (`P3`), a number (`16` for `model.16`), a dotted name, or a glob of roles (`B*`) or of names,
    meant for both networks, or `student:teacher` with one of these on either side; `@2` behind it sets the pair's
    weight. A glob pairs its matches in order and must match as many layers on both sides: lists are never cut to the
    shorter one. Without patterns, every head level that both networks have is paired; where they share none, every
    backbone level, or a U-Net's decoder. A gate's coefficients (`G2`) are compared with a gate's, as the absolute
    values they are.

    Raises InputError for a layer or a role that is not there, for globs that do not match up, for a pair given twice,
    for a gate paired with what is none, and for a pair whose maps would have a single position (it carries no
    attention).
    """
    chosen = list(patterns) or _common_roles(student, teacher)
    pairs: list[Pair] = []
    for text in chosen:
        pattern, _, weight = text.partition("@")
        mine, _, theirs = pattern.partition(":")
        left, right = find_layers(student, mine, "student"), find_layers(teacher, theirs or mine, "teacher")
        if len(left) != len(right):
            raise InputError(
                f"layers '{text}' match {len(left)} in the student and {len(right)} in the teacher: "
                f"write pairs as student:teacher"
            )
        for s, t in zip(left, right, strict=True):
            shared = [role for role in s.roles if role in t.roles and fnmatchcase(role, mine.upper())]
            short = shared[0] if shared and not theirs else _short(s.name)
            pairs.append(Pair(_unused(short, pairs), s.name, t.name, _weight(weight, text), _kind(s, t, text)))
            _check_grid(pairs[-1], s, t)
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        if (pair.student, pair.teacher) in seen:
            raise InputError(f"layers: {pair.student} and {pair.teacher} are paired twice")
        seen.add((pair.student, pair.teacher))
    return pairs


def gate_pairs(
    target: str, student: Sequence[LayerInfo], teacher: Sequence[LayerInfo] = (), only: Sequence[str] = ()
) -> list[Pair]:
    """Each of the student's gates, or `only` those of these roles, with what guides it; none if `target` is "none".

    That is the teacher's gate of the same level, or, where it has none, the energy of what follows the skip there: its
    head's input (`P3` for `G3`) or its decoder (`D3`). Where the target is "truth", the labels, it is no layer. Raises
    InputError for a student without gates, or without one that was named, and a teacher without that level.
    """
    if target == "none":
        return []
    gates = {role: layer for role, layer in by_role(student).items() if role.startswith(GATE)}
    if not gates:
        raise InputError(
            f"--gates {target}: the student has no gates: take --student attention-unet, or a detector's --gated-neck"
        )
    for name in only:
        if name.upper() not in gates:
            raise InputError(f"--gate-layers {name}: the student's gates are {', '.join(gates)}")
    if only:
        gates = {role: gates[role] for role in (name.upper() for name in only)}
    if target == "truth":
        return [Pair(role, layer.name, "", kind="gate") for role, layer in gates.items()]
    guides = by_role(teacher)
    pairs = []
    for role, layer in gates.items():
        level = role[1:].split(".")[0]
        guide = next((name for name in (role, f"G{level}", f"P{level}", f"D{level}") if name in guides), None)
        if guide is None:
            raise InputError(f"--gates {target}: the teacher has no level {level} to guide the student's {role} by")
        kind: Kind = "gate" if guide.startswith(GATE) else "energy"
        pairs.append(Pair(role, layer.name, guides[guide].name, kind=kind))
    return pairs


def _common_roles(student: Sequence[LayerInfo], teacher: Sequence[LayerInfo]) -> list[str]:
    mine, theirs = by_role(student), by_role(teacher)
    for letter in USUAL:
        if shared := [role for role in mine if role in theirs and role.startswith(letter)]:
            return shared
    raise InputError(
        f"teacher and student share no level (student {', '.join(mine) or 'none'}; "
        f"teacher {', '.join(theirs) or 'none'}): name the pairs with --layers student:teacher"
    )


def find_layers(layers: Sequence[LayerInfo], pattern: str, where: str) -> list[LayerInfo]:
    """The layers of one network that one side of a pattern means. Raises InputError, with the nearest, for none."""
    pattern = pattern.upper() if ROLE.fullmatch(pattern.upper()) else pattern
    if ROLE.fullmatch(pattern):
        roles = by_role(layers)
        if pattern not in roles:
            known = nearest(pattern, roles, n=len(roles)) or f"; it has {', '.join(roles) or 'no roles'}"
            raise InputError(f"layer '{pattern}' not found in the {where}{known}")
        return [roles[pattern]]
    if named := [layer for role, layer in by_role(layers).items() if fnmatchcase(role, pattern)]:
        return named  # a glob of roles, such as B*
    table = {layer.name: layer for layer in layers}
    return [table[name] for name in resolve(list(table), pattern, where)]


def _kind(student: LayerInfo, teacher: LayerInfo, pattern: str) -> Kind:
    gates = [any(role.startswith(GATE) for role in layer.roles) for layer in (student, teacher)]
    if any(gates) and not all(gates):
        raise InputError(f"layers '{pattern}': a gate's coefficients and a layer's energy are not the same kind of map")
    return "gate" if all(gates) else "energy"


def _weight(text: str, pattern: str) -> float:
    try:
        weight = float(text or 1.0)
    except ValueError:
        weight = -1.0
    if not 0 < weight < float("inf"):
        raise InputError(f"layers '{pattern}': the weight behind @ must be a number above 0")
    return weight


def _check_grid(pair: Pair, student: LayerInfo, teacher: LayerInfo) -> None:
    grid = tuple(map(min, student.size, teacher.size))
    if all(n == 1 for n in grid):
        raise InputError(
            f"pair {pair.name}: a stride of {max(*student.stride, *teacher.stride):.0f} leaves a map of one position, "
            f"which carries no attention: use larger images or leave {pair.name} out of --layers"
        )


def _short(name: str) -> str:
    """A name that fits the column: `model.16.cv2` -> `16.cv2`; a longer one keeps its ends."""
    short = name.removeprefix("model.")
    room = COLUMN - len("at_")
    return short if len(short) <= room else f"{short[:2]}~{short[-(room - 3) :]}"


def _unused(name: str, pairs: Sequence[Pair]) -> str:
    taken = {"loss", *(pair.name for pair in pairs)}  # at_loss is the total
    room = COLUMN - len("at_")
    candidates = [name, *(f"{name[: room - len(str(k)) - 1]}#{k}" for k in range(2, len(pairs) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)
