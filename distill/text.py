"""Words for the user: what they gave, the nearest name to suggest, one line out of somebody else's message, tables."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from typing import Any

FORMULA = tuple("=+-@＝＋－＠")  # what begins a formula; some spreadsheets take the wide ones too
SIMILAR = 0.4  # difflib's own 0.6 misses a short name with one letter wrong: 'P9' for 'P3' is 0.5


def nearest(word: str, choices: Iterable[str], n: int = 3, ending: str = "") -> str:
    """What to put behind "not found": `; nearest: 'a', 'b'`, at most `n`, best first; empty when nothing is similar.

    An `ending` that all have alike is no similarity.
    """
    known = {str(choice).lower().removesuffix(ending): str(choice) for choice in choices}
    matches = get_close_matches(str(word).lower().removesuffix(ending), known, n=max(n, 1), cutoff=SIMILAR)
    return f"; nearest: {', '.join(repr(known[match]) for match in matches)}" if matches else ""


def as_text(file: str | PathLike[str] | None) -> str | None:
    """The path of a file as text, for those who give a `Path`."""
    return None if file is None else fspath(file)


def plain(value: object) -> str:
    """Text that is safe in one line of a terminal: a name may hold a line break, or a sequence that commands it."""
    return str(value) if str(value).isprintable() else repr(str(value))


def given(argument: str, value: object) -> str:
    """What the user wrote, to begin an error with: `--teacher best.pt` or `pretrained=best.pt`."""
    text = plain(value)
    return f"{argument}{text}" if argument.endswith("=") else f"{argument} {text}"


def one_line(message: object) -> str:
    """The text of a message or an exception without line breaks, colours, pictograms or a leading 'ERROR'."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(message))
    plain = "".join(" " if unicodedata.category(c) in ("So", "Cc") or c == "\ufe0f" else c for c in text)
    return re.sub(r"^(ERROR|WARNING)\s*", "", " ".join(plain.split()))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, a line per row: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as CSV: numbers with six significant digits, an empty cell for a figure that does not exist (None).

    Names of classes and files are strangers' words: one that begins with = + - or @ gets an apostrophe in front, so
    that no spreadsheet runs it as a formula, and control characters become spaces.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return f"'{text}" if isinstance(value, str) and text.lstrip().startswith(FORMULA) else text


def title_of(file: str) -> str:
    """What to call a network: its file's name, behind that of its run where the file is one of many called best.pt."""
    path = Path(file).absolute()
    return f"{path.parent.parent.name}/{path.name}" if path.parent.name == "weights" else path.name


def figure(value: float | None, form: str = ".4f") -> str:
    """A figure of a table; "not known" for one that does not exist."""
    return "not known" if value is None or math.isnan(value) else format(value, form)


@dataclass(frozen=True)
class Table:
    """A table in words: a row of heads, rows of cells, and what they are."""

    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        return aligned(self.rows) + (f"\n({self.note})" if self.note else "")
