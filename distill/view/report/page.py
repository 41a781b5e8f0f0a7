"""The report as one HTML page: data, style and script inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from distill.records import write_whole
from distill.view.exhibit import Exhibit
from distill.view.report.data import collect
from distill.view.report.encode import dumps

SCRIPTS = tuple(
    f"{name}.js"
    for name in ("base", "maps", "chart", "trend", "overview", "boxes", "masks", "panels", "viewer", "controls", "page")
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def page(exhibits: Sequence[Exhibit], epochs: Sequence[int] = ()) -> str:
    """The page's HTML.

    One exhibit, or those of a training's epochs: the same networks, rows and images, of which the reference's maps are
    taken from the first exhibit. `epochs` are the epochs' numbers, counted from 1 where none are given.

    Nothing in the data can become markup or script: it travels as JSON without `<`, is shown as text, and the page's
    security policy runs no script but its own.

    Raises ValueError without an exhibit, and where the exhibits' images or rows, or the epochs, do not match.
    """
    if not exhibits:
        raise ValueError("a report needs at least one exhibit")
    numbers = list(epochs) or list(range(1, len(exhibits) + 1))
    _check(exhibits, numbers)
    overview, images = collect(exhibits, numbers if len(exhibits) > 1 else [])
    script = "\n".join(_part(name) for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    script = script.encode("ascii", "backslashreplace").decode()  # or its hash would depend on the page's encoding
    blocks = [("report", overview), *((f"image-{index}", block) for index, block in enumerate(images))]
    return Template(_part("page.html")).substitute(
        policy=POLICY.format(digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")),
        title=escape(exhibits[0].title or "Attention maps"),
        style=_part("page.css"),
        data="\n".join(
            f'<script type="application/json" id="{name}">{dumps(value)}</script>' for name, value in blocks
        ),
        script=script,
    )


def save_page(exhibits: Sequence[Exhibit], path: Path, epochs: Sequence[int] = ()) -> Path:
    """Write the page, whole or not at all; the path is returned. Raises as `page` does."""
    write_whole(path, page(exhibits, epochs))
    return path


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _check(exhibits: Sequence[Exhibit], epochs: Sequence[int]) -> None:
    if len(epochs) != len(exhibits):
        raise ValueError(f"{len(exhibits)} exhibits have {len(exhibits)} epochs, not {len(epochs)}")
    first = exhibits[0]
    for exhibit in exhibits:
        for part in ("networks", "rows", "samples"):
            names = [[getattr(item, "name", None) or item.key for item in getattr(e, part)] for e in (first, exhibit)]
            if names[0] != names[1]:
                raise ValueError(f"the exhibits of a timeline have the same {part}: {names[0]} is not {names[1]}")
