"""Which seeds a bench runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distill.errors import InputError

HIGHEST = 2**31 - 1  # as for a single run
MOST = 10_000


def read_seeds(given: int | str | Sequence[int]) -> tuple[int, ...]:
    """`8` means 0 to 7; `100,101` and `100-107` mean just these. Raises InputError for none, and one given twice."""
    text = ",".join(map(str, given)) if isinstance(given, (list, tuple, range)) else str(given)
    if re.fullmatch(r"\s*\d+\s*", text) and not isinstance(given, (list, tuple, range)):
        found = list(range(min(int(text), MOST + 1)))
    else:
        found = [seed for part in text.split(",") if text for seed in _part(part.strip(), text)]
    if not found:
        raise InputError(f"--seeds {text}: no seed, no run: a number from 1, or a list such as 100,101 or 100-107")
    if len(found) > MOST or max(found) > HIGHEST:
        raise InputError(f"--seeds {text}: at most {MOST} of them, each below 2**31")
    twice = sorted({seed for seed in found if found.count(seed) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise InputError(f"--seeds {text}: {twice[0]} is listed twice")
    return tuple(found)


def named(seeds: Sequence[int]) -> str:
    """As they are told: "0 to 7" for a range, else each of them."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and list(seeds) == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, seeds))


def _part(part: str, text: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if not match:
        raise InputError(f"--seeds {text}: '{part}' is neither a number nor a range such as 100-107")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InputError(f"--seeds {text}: {part} runs backwards")
    if last - first >= MOST:
        raise InputError(f"--seeds {text}: at most {MOST} of them")
    return range(first, last + 1)
