"""The page of a bench as one HTML file that loads nothing. Its script only turns it dark or light."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from distill.records import write_whole
from distill.view.benching.charts import draw, look
from distill.view.benching.content import Chart, Content, Line, Section, Table
from distill.view.report.page import POLICY

SCRIPT = """
const root = document.documentElement, button = document.getElementById("theme");
function turn(theme) { root.dataset.theme = theme; button.textContent = theme === "dark" ? "Light" : "Dark"; }
button.hidden = false;
button.addEventListener("click", () => turn(root.dataset.theme === "dark" ? "light" : "dark"));
turn(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
"""


def page(content: Content) -> str:
    """The page's HTML. Whatever a file or a folder is called, it is text here and never markup."""
    return Template(_part(__package__, "page.html")).substitute(
        policy=POLICY.format(digest=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")),
        title=escape(content.title),
        subject=escape(content.subject),
        style=_part("distill.view.report", "page.css") + _part(__package__, "page.css"),
        verdicts=_list(content.verdicts, "verdicts"),
        notes="\n".join(f"<p>{escape(note)}</p>" for note in content.notes),
        sections="\n".join(_section(section, number, content.arms) for number, section in enumerate(content.sections)),
        script=SCRIPT,
    )


def save_page(content: Content, path: Path) -> Path:
    """Write the page, whole or not at all; the path is returned."""
    write_whole(path, page(content))
    return path


def _section(section: Section, number: int, arms: Sequence[str]) -> str:
    name = f"section{number}"
    parts = [f'<section aria-labelledby="{name}">', f'<h2 id="{name}">{escape(section.title)}</h2>']
    parts += [f'<p class="muted">{escape(section.lead)}</p>'] if section.lead else []
    if section.charts:
        drawn = any(chart.marks and not _named(chart) for chart in section.charts)
        parts += [_legend(arms, section.charts)] if drawn else []
        parts.append(f'<div class="charts">{"".join(map(_chart, section.charts))}</div>')
    tables = [_table(table, name) for table in section.tables]
    parts += ["<details><summary>Show</summary>", *tables, "</details>"] if section.folded else tables
    return "\n".join([*parts, "</section>"])


def _chart(chart: Chart) -> str:
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{draw(chart)}</figure>"


def _legend(arms: Sequence[str], charts: Iterable[Chart]) -> str:
    shown = {mark.arm for chart in charts for mark in chart.marks}
    lines = any(isinstance(mark, Line) for chart in charts for mark in chart.marks)
    entries = []
    for number, arm in enumerate(arms):
        if number in shown:
            line = f'<path class="curve {look(number)}" d="M0 5L30 5"/>'
            dot = f'<circle class="solid {look(number)}" cx="15" cy="5" r="4"/>'
            entries.append(
                f'<li><svg viewBox="0 0 30 10" aria-hidden="true">{line if lines else dot}</svg>{escape(arm)}</li>'
            )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _named(chart: Chart) -> bool:
    """Do its marks carry their arms' names themselves?"""
    return any(hasattr(mark, "label") for mark in chart.marks)


def _table(table: Table, name: str) -> str:
    def cell(text: str, column: int) -> str:
        look = ' class="text"' if column in table.words else ""
        return f'<th scope="row"{look}>{escape(text)}</th>' if column == 0 else f"<td{look}>{escape(text)}</td>"

    head = "".join(
        f'<th scope="col"{" class=" + chr(34) + "text" + chr(34) if i in table.words else ""}>{escape(text)}</th>'
        for i, text in enumerate(table.head)
    )
    rows = "".join(f"<tr>{''.join(cell(text, i) for i, text in enumerate(row))}</tr>" for row in table.rows)
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _list(items: Iterable[str], look: str) -> str:
    return f'<ul class="{look}">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


def _part(package: str | None, name: str) -> str:
    return (files(package or "") / name).read_text(encoding="utf-8")
