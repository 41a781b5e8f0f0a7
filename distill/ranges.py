"""What the settings of a run may be: names to choose from, and ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

FORMS = ("l2", "squared", "mean", "pearson")
FOCUSES = ("none", "boxes", "teacher")
GATES = ("none", "truth", "teacher", "shuffled")
INITS = ("auto", "none", "teacher", "fit", "best")
LOSSES = ("dice-ce", "dice")
SCHEDULES = ("constant", "cosine")
NO_PAIRS = ("none",)  # --layers none: no energy is compared
USUAL = ("auto",)  # --response auto: class scores and boxes, as far as both heads have them; --features auto: on trial
RESPONSES = ("bce", "kl", "cwd", "pkd", "boxes")
PRECISIONS = ("auto", "float32", "bfloat16")
BOXLESS = ("classify", "semantic")  # tasks whose labels are no boxes

Range = tuple[Callable[[Any], bool], str]  # is a value in it, and what is wanted
POSITIVE: Range = (lambda value: 0 < value < math.inf, "a number above 0")
LEAST_ZERO: Range = (lambda value: 0 <= value < math.inf, "a number from 0")
SHARE: Range = (lambda value: 0 <= value <= 1, "from 0 to 1")
PART: Range = (lambda value: 0 < value <= 1, "above 0, at most 1")
SIDE: Range = (lambda value: value >= 32, "at least 32 pixels")
SEED: Range = (lambda value: 0 <= value < 2**31, "a whole number from 0, below 2**31")  # as NumPy takes
EPOCHS: Range = (lambda value: all(e.isdigit() and int(e) > 0 for e in value), "whole numbers from 1")


def one_of(choices: Sequence[str]) -> Range:
    """Is it one of these names?"""
    return (lambda value: value in choices), f"one of {', '.join(choices)}"


def of_responses(value: Sequence[str]) -> bool:
    """Is it "auto" alone, or at most one loss of class scores and "boxes", each once?"""
    if tuple(value) == USUAL:
        return True
    scores = [name for name in value if name != "boxes"]
    return set(value) <= set(RESPONSES) and len(set(value)) == len(value) and len(scores) <= 1
