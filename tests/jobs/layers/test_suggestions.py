"""The rules by which pairs are suggested, on figures made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from distill.attention.layers import LayerInfo
from distill.attention.pairs import pair_layers
from distill.attention.similarity import Likeness
from distill.jobs.layers.suggestions import Candidate, candidates, suggest

GOOD = Candidate("P3", "model.16", "model.16", 0.8, 0.05, 0.5, 0.3, 0.4, 1.0, 0.5)


def layer(number: int, level: int, *roles: str, parameters: int = 9) -> LayerInfo:
    cells = 256 >> level
    return LayerInfo(f"model.{number}", "Conv", (1, 8, cells, cells), (2.0**level,) * 2, parameters, roles)


def likeness(
    cka: list[list[float]], cosine: float = 0.5, shuffled: float = 0.3, chance: float = 0.05, constant: float = 0.3
) -> Likeness:
    values = torch.tensor(cka, dtype=torch.float64)
    others = (torch.full_like(values, value) for value in (chance, cosine, shuffled))
    return Likeness(values, *others, torch.full_like(values[:, 0], constant))


def named(role: str, **changes: float) -> Candidate:
    return replace(GOOD, pattern=role, student=f"s.{role}", teacher=f"t.{role}", **changes)


# ---- the score


def test_the_score_is_the_product_it_is_said_to_be():
    assert GOOD.distance == pytest.approx(0.5)
    assert GOOD.unlearned == pytest.approx(0.5 / 0.7)
    assert GOOD.score == pytest.approx(1.0 * 0.5 * (0.5 / 0.7) / 1.5)
    assert 0.0 < GOOD.score < replace(GOOD, cost=0.1).score
    assert GOOD.score < replace(GOOD, cosine=0.4).score
    assert GOOD.score < replace(GOOD, shuffled=0.4).score  # more of the agreement is chance
    assert GOOD.score > replace(GOOD, learnable=0.5).score


def test_no_more_alike_than_chance_is_wholly_unlearned():
    assert replace(GOOD, cosine=0.2, shuffled=0.3).unlearned == 1
    assert replace(GOOD, cosine=1.0, shuffled=1.0).score == 0
    assert replace(GOOD, cosine=1.0 + 1e-7, shuffled=0.3).score == 0  # rounding


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("unrelated", {"cka": 0.09}),
        ("unlike beside the others", {"learnable": 0.19}),
        ("always the same map", {"cosine": 0.98, "shuffled": 0.98}),
        ("a teacher that looks at one place", {"constant": 0.96}),
        ("alike, image by image", {"cosine": 0.94, "shuffled": 0.1}),
    ],
)
def test_what_is_left_out(what: str, changes: dict[str, float]):
    assert GOOD.possible
    assert not replace(GOOD, **changes).possible
    assert suggest([replace(GOOD, **changes)]) == []


def test_layers_without_a_common_role_must_stand_out_further():
    assert replace(GOOD, cka=0.12).possible
    assert not replace(GOOD, cka=0.12, same_role=False).possible


def test_the_reason_names_the_figures():
    assert "\n" not in GOOD.reason
    for figure in ("score 0.24", "CKA 0.80", "cosine 0.50", "shuffled 0.30", "50% of the teacher"):
        assert figure in GOOD.reason


# ---- the choice


def test_three_in_any_case_and_more_where_they_are_worth_it():
    weak = [named(role, cosine=0.9) for role in ("B3", "B4", "B5")]
    strong = [named("P3"), named("P4", cost=0.6), named("P5", cost=0.7)]
    assert [pair.pattern for pair in suggest([*weak, *strong])] == ["P3", "P4", "P5"]
    assert len(suggest([strong[0], *weak])) == 3
    assert len(suggest([*strong, named("B4", cost=0.3), *weak])) == 4
    many = [named(f"P{k}") for k in range(3, 12)]
    assert len(suggest(many)) == 6


def test_the_best_comes_first():
    pairs = suggest([named("P5", cost=0.9), named("P3", cost=0.2), named("P4", cost=0.5)])
    assert [pair.pattern for pair in pairs] == ["P3", "P4", "P5"]


def test_other_layers_fill_up_and_none_is_used_twice():
    other = replace(GOOD, pattern="13:14", student="model.13", teacher="model.14", same_role=False)
    again = replace(other, pattern="16:14", student="model.16")
    apart = replace(other, pattern="5:5", student="model.5", teacher="model.5", beside_role=False, cost=0.0)
    assert [pair.pattern for pair in suggest([apart, again, other, GOOD])] == ["P3", "13:14", "5:5"]
    full = [named(role) for role in ("P3", "P4", "P5")]
    assert suggest([*full, other]) == full


def test_nothing_to_choose_from():
    assert suggest([]) == []


# ---- the candidates


def test_candidates_are_of_one_stride_and_relative_to_the_best():
    student = [layer(1, 3, "B3"), layer(2, 4, "B4")]
    teacher = [layer(4, 3, "B3"), layer(6, 4, "B4"), layer(7, 4)]
    cost = {"model.4": 0.1, "model.6": 0.2, "model.7": 1.0}
    found = candidates(student, teacher, likeness([[0.9, 0.99], [0.99, 0.3], [0.99, 0.6]]), cost)
    assert {(pair.pattern, pair.same_role) for pair in found} == {("B3", True), ("B4", True), ("2:7", False)}
    by = {pair.pattern: pair for pair in found}
    assert by["B3"].learnable == 1
    assert by["B4"].learnable == pytest.approx(0.3 / 0.45)
    assert [by[name].cost for name in ("B3", "B4", "2:7")] == [0.1, 0.2, 1]
    assert by["B4"].chance == 0.05 and by["B4"].shuffled == 0.3
    assert found == sorted(found, key=lambda pair: -pair.score)


def test_shallow_layers_count_only_where_a_head_reads_them():
    cost = {"model.2": 0.1}
    shallow = likeness([[0.9]])
    assert candidates([layer(2, 2, "B2")], [layer(2, 2, "B2")], shallow, cost) == []
    assert len(candidates([layer(2, 2, "B2", "P2")], [layer(2, 2, "B2")], shallow, cost)) == 1


def test_layers_without_weights_count_only_in_their_role():
    cost = {"model.4": 0.1}
    one = likeness([[0.9]])
    assert candidates([layer(4, 3, parameters=0)], [layer(4, 3)], one, cost) == []
    assert len(candidates([layer(4, 3, "P3", parameters=0)], [layer(4, 3, "P3")], one, cost)) == 1


def test_unknown_and_negative_figures():
    cost = {"model.4": 0.1}
    assert candidates([layer(4, 3)], [layer(4, 3)], likeness([[math.nan]]), cost) == []
    assert candidates([layer(4, 3)], [layer(4, 3)], likeness([[0.9]], cosine=math.nan), cost) == []
    (pair,) = candidates([layer(4, 3)], [layer(4, 3)], likeness([[-0.1]]), cost)
    assert pair.learnable == 0 and not pair.possible


def test_patterns_mean_the_pair_where_they_are_pasted():
    student = [layer(1, 3, "B3"), layer(2, 4, "B4"), layer(5, 4)]
    teacher = [layer(4, 3, "B3"), layer(6, 4, "P4"), layer(7, 4)]
    found = candidates(student, teacher, likeness([[0.9] * 3] * 3), {layer.name: 0.5 for layer in teacher})
    pasted = pair_layers(student, teacher, [pair.pattern for pair in found])
    assert [(pair.student, pair.teacher) for pair in pasted] == [(pair.student, pair.teacher) for pair in found]
