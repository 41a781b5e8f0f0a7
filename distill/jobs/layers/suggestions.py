"""Which layers to pair, and why: rules short enough to be argued with.

A pair of layers is a candidate where both have the same stride, of 8 at least or one that a head reads (shallower
layers see edges, not objects), and both have weights (which Concat and Upsample lack) or the same role. Its figures,
each from 0 to 1:

    learnable   its CKA relative to half the highest among the candidates, at most 1: alike enough to be learned, beyond
                which being more alike is no merit
    distance    1 - cosine of the attention maps: not alike already
    unlearned   (1 - cosine) / (1 - null), the null being the cosine of shuffled images: what agreement there is comes
                from the place in the image (a bright border, a bright centre), not from what the image shows
    cost        share of the teacher's forward pass that is needed to reach its layer

    score       learnable * distance * unlearned / (1 + cost)

so a pair that needs the whole teacher must promise twice as much as one that would cost nothing: with a student of a
fraction of the teacher's size, its own step takes about as long as the teacher's forward pass.

Left out are pairs whose CKA is within two standard deviations of what shuffled images give (unrelated, as far as these
images can tell) or under 0.2 in learnable (too unlike), under 0.05 in distance (too alike, if only because both maps
are always the same), or under 0.1 in unlearned (alike, image by image); and those whose teacher's map is nearly the
same for every image (a cosine over 0.95 between its maps of different images), for it holds nothing of the image.

Pairs of the same role (P3 with P3) come first, best score first: three of them in any case, up to six as long as they
reach half the best score. Only if there are fewer than three, other candidates fill up, those with one role first; of
these there are many, so their CKA must be three standard deviations up. No layer is in two pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from distill.attention.layers import LayerInfo
from distill.attention.similarity import Likeness

LEAST, MOST = 3, 6  # pairs
LEAST_LEARNABLE, LEAST_DISTANCE, LEAST_UNLEARNED = 0.2, 0.05, 0.1
MOST_CONSTANT = 0.95
ENOUGH = 0.5  # of the highest CKA
ABOVE_CHANCE, FAR_ABOVE_CHANCE = 2.0, 3.0  # standard deviations
LEAST_LEVEL = 3  # stride 8
WORTH_ADDING = 0.5  # of the best score, for a fourth pair and further ones


@dataclass(frozen=True)
class Candidate:
    """Two layers that could be paired, and what speaks for it.

    `pattern` is what `--layers` takes: the common role, or student:teacher. `same_role`: they have one in common;
    `beside_role`: at least one of them has a role. `cka`, `chance`, `cosine`, `shuffled` and `constant` are as in
    `Likeness`, `learnable` and `cost` in [0, 1].
    """

    pattern: str
    student: str
    teacher: str
    cka: float
    chance: float
    cosine: float
    shuffled: float
    constant: float
    learnable: float
    cost: float
    same_role: bool = True
    beside_role: bool = True

    @property
    def distance(self) -> float:
        """1 - cosine, in [0, 1]: half the squared L2 distance of the two maps of norm 1."""
        return min(1.0, max(0.0, 1 - self.cosine))

    @property
    def unlearned(self) -> float:
        """In [0, 1]: 1 where the maps of an image are no more alike than those of two images, 0 where they are equal.

        0 as well where all maps are equal: nothing is left to learn.
        """
        return min(1.0, self.distance / (1 - self.shuffled)) if self.shuffled < 1 else 0.0

    @property
    def score(self) -> float:
        """In [0, 1]; see the module."""
        return self.learnable * self.distance * self.unlearned / (1 + self.cost)

    @property
    def possible(self) -> bool:
        """Is it alike enough to be learned, and not alike already?"""
        room = self.distance >= LEAST_DISTANCE and self.unlearned >= LEAST_UNLEARNED
        above_chance = self.cka > self.chance * (ABOVE_CHANCE if self.same_role else FAR_ABOVE_CHANCE)
        varies = self.constant <= MOST_CONSTANT
        return above_chance and varies and self.learnable >= LEAST_LEARNABLE and room

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return (
            f"score {self.score:.2f}: CKA {self.cka:.2f}, chance ±{self.chance:.2f} (learnable {self.learnable:.2f}); "
            f"cosine {self.cosine:.2f}, shuffled {self.shuffled:.2f} (unlearned {self.unlearned:.2f}), "
            f"the teacher's own {self.constant:.2f}; {self.cost:.0%} of the teacher"
        )


def candidates(
    student: Sequence[LayerInfo], teacher: Sequence[LayerInfo], likeness: Likeness, cost: Mapping[str, float]
) -> list[Candidate]:
    """Every pair of layers that could be paired, best score first.

    `likeness` has a row for each of `teacher` and a column for each of `student`; `cost` is the share of the teacher's
    forward pass up to and including each of its layers. Pairs without a CKA or cosine (a layer that does not depend on
    the image) are left out.
    """
    found = list(_measured(student, teacher, likeness))
    best = max((figures["cka"] for _, _, figures in found), default=0.0)
    pairs = []
    for s, t, figures in found:
        shared = [role for role in s.roles if role in t.roles]
        pair = Candidate(
            pattern=shared[0] if shared else f"{_number(s.name)}:{_number(t.name)}",
            student=s.name,
            teacher=t.name,
            **figures,
            learnable=min(1.0, max(0.0, figures["cka"]) / (ENOUGH * best)) if best > 0 else 0.0,
            cost=cost[t.name],
            same_role=bool(shared),
            beside_role=bool(s.roles or t.roles),
        )
        pairs.append(pair)
    return sorted(pairs, key=lambda pair: -pair.score)


def suggest(pairs: Iterable[Candidate]) -> list[Candidate]:
    """The candidates to pair, those of the same role first, best first; empty where none is possible."""
    possible = sorted((pair for pair in pairs if pair.possible), key=lambda pair: -pair.score)
    chosen: list[Candidate] = []
    for pair in (one for one in possible if one.same_role):
        worth = len(chosen) < LEAST or pair.score >= WORTH_ADDING * chosen[0].score
        if worth and len(chosen) < MOST and _free(pair, chosen):
            chosen.append(pair)
    for pair in sorted((one for one in possible if not one.same_role), key=lambda one: not one.beside_role):
        if len(chosen) < LEAST and _free(pair, chosen):
            chosen.append(pair)
    return chosen


def _measured(
    student: Sequence[LayerInfo], teacher: Sequence[LayerInfo], likeness: Likeness
) -> Iterator[tuple[LayerInfo, LayerInfo, dict[str, float]]]:
    read = {layer.level for layer in (*student, *teacher) if any(role.startswith("P") for role in layer.roles)}
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            figures = {name: float(getattr(likeness, name)[i, j]) for name in ("cka", "chance", "cosine", "shuffled")}
            figures["constant"] = float(likeness.constant[i])
            deep = s.level == t.level and (s.level >= LEAST_LEVEL or s.level in read)
            blocks = bool(s.parameters and t.parameters) or bool(set(s.roles) & set(t.roles))
            if deep and blocks and all(map(math.isfinite, figures.values())):
                yield s, t, figures


def _free(pair: Candidate, chosen: Sequence[Candidate]) -> bool:
    return all(pair.student != other.student and pair.teacher != other.teacher for other in chosen)


def _number(name: str) -> str:
    """`model.16` -> `16`, as `--layers` takes it; other names as they are."""
    short = name.removeprefix("model.")
    return short if short.isdigit() else name
