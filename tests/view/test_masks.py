"""Masks instead of boxes: outlines, sheets of networks that lack a layer, a grid by level, the report."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.view.exhibit import BASELINE, STUDENT, TEACHER, TRUTH, Exhibit
from distill.view.outlines import outlines
from distill.view.report.encode import mask
from distill.view.report.page import page, save_page
from distill.view.scale import scales
from distill.view.sheet.drawing import sheet

from . import kit
from .test_report_browser import browser, canvas, pixel, visit  # noqa: F401
from .test_sheet import panels, texts

CLASSES = ("background", "anterior", "posterior")
ROLES = {"P3": "E2", "P4": "G2", "P5": "X2", "B3": "D2"}


def masks(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    truth = np.zeros(shape, np.uint8)
    truth[20:60, 30:80], truth[60:90, 40:70] = 1, 2
    return {TRUTH: truth, STUDENT: np.roll(truth, 5, 1)}


def exhibit(networks: tuple[str, ...] = (TEACHER, STUDENT, BASELINE), lacking: str = TEACHER) -> Exhibit:
    """Rows of U-Nets; one network has no gate, and so neither what it lets through."""
    found = kit.exhibit(images=2, pairs=tuple(ROLES), networks=networks)
    rows = []
    for row in found.rows:
        name = ROLES[row.name]
        sides = {key: side for key, side in row.sides.items() if key != lacking or name[0] not in "GX"}
        rows.append(
            replace(row, name=name, sides=sides, kind="gate" if name[0] == "G" else "energy", about="of level 2")
        )
    samples = []
    for sample in found.samples:
        maps = {row.name: {} for row in rows}
        for old, new in ROLES.items():
            keys = next(row.sides for row in rows if row.name == new)
            maps[new] = {key: sample.maps[old][key] / (400 if new[0] == "G" else 1) for key in keys}
        dice = {STUDENT: {"anterior": 0.5, "posterior": 0.25}}
        samples.append(replace(
            sample, maps=maps, labels=None, predictions={}, masks=masks(sample.picture.shape[:2]), dice=dice,
            verdicts={STUDENT: "Dice 0.375"}, case="volume",
        ))  # fmt: skip
    figures = tuple(
        {**row, "image": "volume", "pair": ROLES[row["pair"]], "foreground_ratio": 2.5, "alpha_r": 0.5}
        for row in found.numbers.maps
    )
    summary = {
        ROLES[pair]: {key: {} if key == lacking and ROLES[pair][0] in "GX" else told for key, told in networks.items()}
        for pair, networks in found.numbers.summary.items()
    }
    gates = tuple(
        {"network": STUDENT, "opened": name, "dice": 0.8, "change": change, "low": change, "high": change, "n": 4,
         "alpha_mean": 0.5, "alpha_std": 0.1, "alpha_r": None}
        for name, change in (("none", None), ("G2", -0.1))
    )  # fmt: skip
    numbers = replace(found.numbers, maps=figures, objects=(), summary=summary, silent={}, gates=gates)
    return replace(found, rows=tuple(rows), samples=tuple(samples), numbers=numbers, classes=CLASSES)


# ---- outlines


def test_the_outline_of_a_rectangle_runs_along_its_pixels_edges():
    labels = np.zeros((6, 9), int)
    labels[0:3, 2:9] = 2  # to the border
    (line,) = outlines(labels, 2)
    assert (line[0] == line[-1]).all()
    assert line.min(axis=0) == pytest.approx((2, 0)) and line.max(axis=0) == pytest.approx((9, 3))
    x, y = line.T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    assert area == pytest.approx(21 - 4 / 8)  # each corner is cut by half a pixel
    assert outlines(labels, 1) == []


def test_a_hole_has_an_outline():
    labels = np.ones((7, 7), int)
    labels[3, 3] = 0
    assert len(outlines(labels, 1)) == 2


# ---- sheets


def test_a_network_without_the_layer_has_an_empty_place():
    shown = exhibit()
    figure = sheet(shown, shown.samples[0])
    names = panels(figure)
    assert "E2 teacher" in names and "G2 student" in names and "G2 teacher" not in names
    assert "D2 student − teacher" in names and "G2 student − teacher" not in names
    words = texts(figure)
    assert "it has no G2" in words and words.count("no X2 in the teacher") == 2
    assert scales([shown], "shared")["G2"].difference is None


def test_a_sheet_tells_dice_and_area_by_class():
    shown = exhibit()
    words = texts(sheet(shown, shown.samples[0]))
    assert {"anterior", "posterior", "0.500", "0.250", "Dice 0.375", "truth", "Dice"} <= set(words)
    area = (shown.samples[0].masks[TRUTH] == 1).mean()
    assert f"{area:.1%}" in words and "?" in words  # the teacher's Dice is not known


NETWORKS = [(STUDENT,), (STUDENT, BASELINE), (TEACHER, STUDENT, BASELINE)]


@pytest.mark.parametrize("networks", NETWORKS)
def test_no_text_covers_another_or_leaves_the_page(networks: tuple[str, ...]):
    shown = exhibit(networks, lacking=BASELINE)
    figure = sheet(shown, shown.samples[0])
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()]
    edges = np.array([(b.x0, b.y0, b.x1, b.y1) for b in boxes])
    assert edges.min() >= 0 and (edges[:, 2:] <= (figure.bbox.width, figure.bbox.height)).all()
    inner = edges + np.array((1, 2.5, -1, -2.5))
    for i, (x0, y0, x1, y1) in enumerate(inner):
        covered = (inner[:, 0] < x1) & (inner[:, 2] > x0) & (inner[:, 1] < y1) & (inner[:, 3] > y0)
        assert covered.sum() == covered[i], texts(figure)[i]


def test_one_network_is_a_line_per_level():
    shown = exhibit((STUDENT,))
    figure = sheet(shown, shown.samples[0])
    images = {image.get_gid(): image.get_extent() for image in figure.axes[0].images}
    tops = {images[f"{role} student"][3] for role in ROLES.values()}
    lefts = [images[f"{role} student"][0] for role in ROLES.values()]
    assert len(tops) == 1 and lefts == sorted(lefts) and len(set(lefts)) == 4


def test_two_networks_have_a_line_each():
    shown = exhibit((STUDENT, BASELINE), lacking=BASELINE)
    figure = sheet(shown, shown.samples[0])
    tops = {image.get_gid(): image.get_extent()[3] for image in figure.axes[0].images}
    assert tops["E2 student"] == tops["G2 student"] < tops["E2 baseline"] == tops["D2 baseline"]
    assert "G2 baseline" not in tops


# ---- the report


@pytest.mark.parametrize("networks", NETWORKS)
def test_the_overview_is_drawn_for_any_networks(networks: tuple[str, ...], tmp_path: Path, visit):  # noqa: F811
    tab = visit(save_page([exhibit(networks, lacking=BASELINE)], tmp_path / "report.html").as_uri())
    assert tab.locator("#gallery li").count() == 2
    told = 6 if TEACHER in networks else 2 if BASELINE in networks else 4  # the kit has figures of all but the first
    assert tab.locator("#where tbody tr").count() == told


def test_a_mask_travels_as_it_is():
    labels = np.random.default_rng(0).integers(0, 3, (40, 30))
    data = mask(labels, 3).removeprefix("data:image/png;base64,")
    values = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert (np.round(values / (255 // 2)) == labels).all()
    assert Image.open(io.BytesIO(base64.b64decode(mask(np.ones((1000, 2000)), 2)[22:]))).size == (960, 480)


def test_the_report_draws_masks_and_tells_of_gates(tmp_path: Path, visit):  # noqa: F811
    shown = exhibit()
    tab = visit(save_page([shown], tmp_path / "report.html").as_uri())
    assert "2 planes of 1 volume" in tab.locator("#subject").inner_text()
    gates = tab.locator("#gates-section").inner_text()
    assert "What each gate is worth" in gates and "−0.1000 [−0.1000, −0.1000]" in gates
    tab.goto(tab.url.split("#")[0] + "#view=image&layer=G2&opacity=0")
    tab.wait_for_function("document.querySelector('#classes .class') !== null")
    assert "This network has no gate here." in tab.locator('figure[data-panel="teacher"]').inner_text()
    assert "anterior\nstudent 0.500" in tab.locator("#classes").inner_text()
    tab.locator('figure[data-panel="student"] canvas').first.hover(position={"x": 5, "y": 5})
    tab.wait_for_function("document.getElementById('readout').textContent.includes('truth background')")
    height, width = shown.samples[0].picture.shape[:2]
    colour = pixel(tab, "student", 85.2 / width, 40.5 / height)[:3]  # on the right edge of the student's anterior
    assert colour[2] > colour[0] + 60, colour  # the first class is blue
    assert page([shown]).count("data:image/png;base64") == 4
