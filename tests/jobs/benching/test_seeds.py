from __future__ import annotations

import pytest

from distill.errors import InputError
from distill.jobs.benching.seeds import named, read_seeds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (3, (0, 1, 2)),
        ("3", (0, 1, 2)),
        ("100,101", (100, 101)),
        ("100-103", (100, 101, 102, 103)),
        ("7,1-2", (7, 1, 2)),
        ("5-5", (5,)),
        ([4], (4,)),
        (range(2), (0, 1)),
    ],
)
def test_what_is_meant(given, expected) -> None:
    assert read_seeds(given) == expected


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("0", "no seed"),
        ([], "no seed"),
        ("1,1", "1 is listed twice"),
        ("1-3,2", "2 is listed twice"),
        ("9-2", "backwards"),
        ("-1", "'-1' is neither"),
        ("many", "'many' is neither"),
        ("1,,2", "'' is neither"),
        ("99999999999", "at most"),
        ("0-99999999999", "at most"),
        ("2147483648,1", "below 2**31"),
    ],
)
def test_what_is_refused(given, complaint: str) -> None:
    with pytest.raises(InputError, match="--seeds") as refused:
        read_seeds(given)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [(8, "0 to 7"), ("100", "0 to 99"), ("100,101", "100, 101"), ("5,3,9", "5, 3, 9"), ("4", "0 to 3")],
)
def test_seeds_are_told_so_that_a_hundred_is_not_taken_for_seed_100(given: int | str, text: str) -> None:
    assert named(read_seeds(given)) == text
