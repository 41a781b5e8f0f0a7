"""A trial's verdict, from the losses of two short runs."""

import pytest

from distill.trial import Trial

ALONE = [9.0, 8.0, 4.0, 4.0]


@pytest.mark.parametrize(
    ("taught", "change", "harms"),
    [
        ([9.0, 9.0, 3.0, 3.0], -0.25, False),
        ([1.0, 1.0, 4.0, 4.0], 0.0, False),  # the first half is the warm-up's
        ([9.0, 8.0, 4.0, 4.04], 0.005, False),  # as much may be chance
        ([9.0, 8.0, 4.0, 4.4], 0.05, True),
    ],
)
def test_what_slows_the_task_down_is_seen(taught: list[float], change: float, harms: bool) -> None:
    trial = Trial.of(ALONE, taught)
    assert trial.change == pytest.approx(change) and trial.steps == 4
    assert trial.harms is harms


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_breaks_is_left_out(broken: float) -> None:
    ends = [9.0, 8.0, 4.0, broken]
    trial = Trial.of(ALONE, ends)
    assert trial.harms
    assert str(trial) == "the task's loss was no number after 4 steps, with it or without"
    assert Trial.of(ends, ends).harms


def test_losses_of_nothing_and_below_it_are_compared_too() -> None:
    assert not Trial.of([0.0, 0.0], [0.0, 0.0]).harms and Trial.of([0.0, 0.0], [0.1, 0.1]).harms
    assert not Trial.of([-1.0, -1.0], [-1.1, -1.1]).harms and Trial.of([-1.0, -1.0], [-0.9, -0.9]).harms


def test_it_says_what_was_found() -> None:
    assert str(Trial(-0.046, 8)) == "the task's loss was 4.6 % lower after 8 steps"
    assert str(Trial(0.03, 16)) == "the task's loss was 3.0 % higher after 16 steps"
