"""A teacher that works against the task is told of, once, and only where that is clear."""

import math

import pytest

from distill.guard import AGAINST, ENOUGH, Guard, against, mean_cosines, opposed
from distill.weighting import Balance


def found(**cosines):
    return {name: Balance(1.0, 0.2, cosine) for name, cosine in cosines.items()}


def test_a_term_against_the_task_is_told_once_and_one_beside_it_never():
    guard = Guard({}, titles={"classes": "class scores"})
    lines = [guard.note(found(attention=0.1, classes=-0.3)) for _ in range(2 * ENOUGH)]
    assert [n for n, line in enumerate(lines, 1) if line] == [ENOUGH]
    (line,) = lines[ENOUGH - 1]
    assert line.startswith("class scores: taught against the task; over 8 measurements") and "-0.30" in line
    assert "--schedule cosine" in line
    assert guard.latest == {"attention": 0.1, "classes": -0.3}
    assert mean_cosines(guard.record) == pytest.approx({"attention": 0.1, "classes": -0.3})
    assert against(guard.record) == ["classes"]


def test_scatter_around_nothing_is_not_told():
    guard = Guard({})
    lines = [guard.note(found(boxes=cosine)) for cosine in (-0.6, 0.5, -0.5, 0.45, -0.4, 0.3) * 10]
    assert not any(lines) and against(guard.record) == []


def test_what_cannot_be_compared_does_not_count():
    guard = Guard({})
    guard.note(found(boxes=math.nan))
    assert guard.record == {} and guard.latest == {}


def test_until_it_measures_it_says_what_was_found_before_training():
    guard = Guard({}, {"boxes": 0.4})
    assert guard.latest == {"boxes": 0.4} and mean_cosines(guard.record) == {} and against(guard.record) == []
    guard.note(found(boxes=0.1))
    assert guard.latest == {"boxes": 0.1} and mean_cosines(guard.record) == {"boxes": 0.1}
    assert Guard(guard.record, {"boxes": 0.9}).latest == {"boxes": 0.1}  # a run that goes on


def test_it_goes_on_where_it_was_cut_off():
    record = {}
    for _ in range(ENOUGH - 1):
        assert not Guard(record).note(found(boxes_one=-1.0))
    (line,) = Guard(record).note(found(boxes_one=-1.0))
    assert line.startswith("boxes_one: taught against")


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [([-0.2, -0.3], True), ([-0.2, 0.01], False), ([AGAINST / 2] * 3, False), ([], False), ([math.nan], False)],
)
def test_before_training_all_batches_have_to_agree(cosines, expected):
    assert opposed(cosines) is expected
