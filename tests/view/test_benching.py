"""The page of a bench: axes by hand, charts that are XML, a page that fits a phone in either theme."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from distill.view.benching.axes import Span, round_step
from distill.view.benching.charts import draw
from distill.view.benching.content import Chart, Content, Dot, Estimate, Line, Section, Table
from distill.view.benching.page import page, save_page

from .test_report_browser import CONTRAST, browser  # noqa: F401

NASTY = "</script><b>&\"'"
LINE = Line("a", 0, [1, 2], [10, 20], [9, 18], [11, 22])
ROW = Estimate("a", 1, 1.0, -1.0, 3.0, [0.0, 2.0], "+1.00 (not shown)")
DOTS = [Dot("a seed 0", 0, 0.5, 1.0), Dot("a seed 1", 9, 0.6, -1.0)]


def content(name: str = "plain") -> Content:
    charts = [Chart(name, "epoch", name, [LINE]), Chart("c", "x", "y", DOTS)]
    rows = Table(["arm", "verdict", "mean"], [[name, "not shown; 104 seeds would settle it", "1.0"]] * 3, [0, 1])
    sections = [
        Section("Differences", "How to read it.", [Chart("", "points", "", [ROW, ROW])], [rows]),
        Section("Course", "", charts, [rows], folded=True),
    ]
    return Content(f"Bench {name}", name, [f"{name} is better."], ["A note."], [name, "other", NASTY], sections)


def test_a_span_by_hand() -> None:
    span = Span(0, 10, 100, 300)
    assert (span(0), span(5), span(10)) == (100, 200, 300)
    assert span.ticks() == [0, 2, 4, 6, 8, 10] and span.ticks(least=5) == [0, 5, 10]
    assert Span(0, 1, 300, 100)(0.25) == 250  # downwards, as pixels run


@pytest.mark.parametrize(
    ("least", "step"), [(0.9, 1), (1, 1), (1.1, 2), (2.2, 2.5), (2.6, 5), (6, 10), (0.013, 0.02), (300, 500)]
)
def test_steps_are_round(least: float, step: float) -> None:
    assert round_step(least) == pytest.approx(step)


@pytest.mark.parametrize("values", [[], [float("nan")], [0.0], [3.0, 3.0], [-1e-9, 1e9], [-2, -1]])
def test_a_span_has_room_for_whatever_there_is(values: list[float]) -> None:
    span = Span.over(values, 0, 100)
    assert span.low < span.high and 0 < len(span.ticks()) <= 7
    assert all(span.low <= value <= span.high for value in values if value == value)


@pytest.mark.parametrize("marks", [[LINE], [ROW, ROW], DOTS, [Line("a", 0, [1], [5], [5], [5])]])
def test_charts_are_xml_with_their_marks(marks: list) -> None:
    root = ET.fromstring(draw(Chart(NASTY, NASTY, NASTY, marks)))
    looks = [node.get("class") or "" for node in root.iter()]
    assert any(look.startswith(("curve", "solid")) for look in looks)
    numbers = [float(node.get(key)) for node in root.iter() for key in ("x1", "x2", "cx") if node.get(key)]
    assert all(0 <= number <= 460 for number in numbers)


def test_names_are_text() -> None:
    document = page(content(NASTY))
    assert NASTY not in document and document.count("</script>") == 1


def test_it_fits_a_phone_and_can_be_read_in_the_dark(browser, tmp_path: Path) -> None:  # noqa: F811
    file = save_page(content("a-rather-long-name-of-an-arm"), tmp_path / "report.html")
    tab = browser.new_page()
    failures: list[str] = []
    tab.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
    tab.goto(file.as_uri())
    for width in (390, 1280):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        outside = (
            "svg => [...svg.querySelectorAll('text')].filter(t => { const b = t.getBBox(), v = svg.viewBox.baseVal;"
        )
        outside += " return b.x < -1 || b.x + b.width > v.width + 1; }).map(t => t.textContent)"
        assert [tab.eval_on_selector_all(".charts svg", f"all => all.flatMap({outside})")] == [[]]
    assert tab.locator("#theme").inner_text() == "Dark" and tab.evaluate(CONTRAST) == []
    tab.click("#theme")
    assert tab.evaluate(CONTRAST) == []
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark" and not failures
    tab.close()
