"""The report in a browser: what a reader does with it, and that it reads the same values as numpy."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.attention.geometry import resample
from distill.view.canvas import backdrop
from distill.view.report.page import save_page
from distill.view.scale import difference, relative
from tests.view import kit

NASTY = "</script><img src=x onerror=document.title='broken'>"
FIRST = 420  # pixels from the top of the image view within which a phone shows the first picture
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READ = """(canvas, x, y) => {
    const copy = document.createElement("canvas");  // the page's own canvas is left as fast as it is
    copy.width = copy.height = 1;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, -Math.floor(x), -Math.floor(y));
    return [...context.getImageData(0, 0, 1, 1).data];
}"""
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed")
    if BROWSER is None:
        absent("there is no chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched.new_context(viewport={"width": 1280, "height": 900})
        launched.close()


def absent(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must test the report")
    pytest.skip(what)


@pytest.fixture(scope="module")
def exhibit():
    found = kit.exhibit(images=3)
    samples = [replace(found.samples[0], verdicts={"student": NASTY})]
    samples[0] = replace(
        samples[0], labels=tuple(replace(thing, name=NASTY) for thing in found.samples[0].labels), file=NASTY
    )
    objects = tuple({**row, "class": NASTY} if row["image"] == "scene0000" else row for row in found.numbers.objects)
    maps = tuple({**row, "spearman": -0.25} for row in found.numbers.maps)
    numbers = replace(found.numbers, objects=objects, maps=maps)
    return replace(found, samples=(*samples, *found.samples[1:]), numbers=numbers)


@pytest.fixture(scope="module")
def report(tmp_path_factory, exhibit):
    return save_page([exhibit], tmp_path_factory.mktemp("report") / "report.html").as_uri()


@pytest.fixture
def visit(browser):
    """Open an address in a tab that fails the test on any error, any message and any request to elsewhere."""
    troubles, tabs = [], []

    def go(address: str):
        tab = browser.new_page()
        tabs.append(tab)
        tab.set_default_timeout(30_000)
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else troubles.append(r.url))
        tab.goto(address)
        return tab

    yield go
    for tab in tabs:
        tab.close()
    assert not troubles


def changed(exhibit, **sample):
    return replace(exhibit, samples=tuple(replace(one, **sample) for one in exhibit.samples))


def canvas(tab, panel: str):
    return tab.locator(f'figure[data-panel="{panel}"] .stage canvas')


def pixel(tab, panel: str, x: float = 0.5, y: float = 0.5) -> list[int]:
    return canvas(tab, panel).evaluate(f"(c, [x, y]) => ({READ})(c, x * c.width, y * c.height)", [x, y])


def value(text: str) -> float:
    return float(re.search(r"Here: ([−\d.e]+)", text)[1].replace("−", "-"))


def at(values: np.ndarray, lattice, frame, x: float, y: float) -> float:
    """The value that numpy draws at a point of the picture, to a twentieth of a pixel."""
    size = tuple(20 * n for n in frame.picture)
    return resample(values, lattice, frame, size)[int(20 * y), int(20 * x)]


def wait_for_picture(tab) -> None:
    tab.wait_for_function(f"() => ({READ})(document.querySelector('.stage canvas'), 9, 9)[3] === 255")


def test_values_under_the_pointer_are_those_of_numpy(visit, report, exhibit):
    sample = exhibit.samples[1]
    tab = visit(f"{report}#view=image&image={sample.name}")
    height, width = sample.frame.picture
    for row, x, y in zip(exhibit.rows, (0.21, 0.83, 0.003), (0.33, 0.61, 0.99)):
        tab.get_by_label(row.name, exact=True).check()
        canvas(tab, "teacher").scroll_into_view_if_needed()
        box = canvas(tab, "teacher").bounding_box()
        left, top = round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])
        tab.mouse.move(left, top)
        point = {"x": (left - box["x"]) / box["width"] * width, "y": (top - box["y"]) / box["height"] * height}
        for key in ("teacher", "student"):
            text = tab.locator(f'figure[data-panel="{key}"] .value').inner_text()
            values, lattice = sample.maps[row.name][key], row.sides[key].lattice
            assert value(text) == pytest.approx(at(relative(values), lattice, sample.frame, **point), rel=0.01)
            raw = float(re.search(r"raw energy ([\d.]+)", text)[1])
            assert raw == pytest.approx(at(values, lattice, sample.frame, **point), rel=0.01)
        values, lattice = difference(row, sample, "student", "teacher", "shared")
        text = tab.locator('figure[data-panel="difference-student"] .value').inner_text()
        assert value(text) == pytest.approx(at(values, lattice, sample.frame, **point), rel=0.02, abs=0.005)
        assert "Teacher" in tab.locator("#readout").inner_text()


def test_what_is_drawn_is_what_numpy_paints(visit, report, exhibit):
    """At full opacity a canvas shows the colours of the scale where numpy's resampling puts them."""
    from distill.view.scale import scales

    sample, row = exhibit.samples[1], exhibit.rows[1]
    tab = visit(f"{report}#view=image&image={sample.name}&layer=P4&opacity=100&boxes=none&show=student")
    wait_for_picture(tab)
    size = canvas(tab, "student").evaluate("c => [c.height, c.width]")
    drawn = resample(relative(sample.maps["P4"]["student"]), row.sides["student"].lattice, sample.frame, tuple(size))
    colours = scales([exhibit], "shared")["P4"].maps.paint(drawn)
    for x, y in ((0.1, 0.1), (0.5, 0.4), (0.77, 0.9)):
        expected = colours[int(y * size[0]), int(x * size[1])].astype(int)
        np.testing.assert_allclose(pixel(tab, "student", x, y)[:3], expected, atol=4)


def test_layer_scale_opacity_and_what_is_shown(visit, report):
    tab = visit(f"{report}#view=image&image=scene0001&boxes=none")
    wait_for_picture(tab)
    first = pixel(tab, "student")
    tab.get_by_label("P5", exact=True).check()
    assert "P5" in tab.locator("#image-title").inner_text() and "layer=P5" in tab.url
    assert pixel(tab, "student") != first
    slider = tab.locator("#opacity").bounding_box()
    middle = slider["y"] + slider["height"] / 2
    tab.mouse.move(slider["x"] + 0.6 * slider["width"], middle)
    tab.mouse.down()
    shades = []
    for part in (0.98, 0.5, 0.01):
        tab.mouse.move(slider["x"] + part * slider["width"], middle)
        shades.append(pixel(tab, "student"))
    tab.mouse.up()
    assert len({tuple(shade) for shade in shades}) == 3 and "opacity=0" in tab.url
    tab.get_by_label("Student − teacher", exact=True).check()
    assert tab.locator("#panels figure").count() == 1
    assert "more, blue: less" in tab.locator("#panels").inner_text()
    tab.locator("#mode").select_option("each")
    assert "not comparable" in tab.locator("#panels").inner_text()
    tab.get_by_label("Teacher", exact=True).check()
    assert "not comparable" in tab.locator(".scale + div").inner_text()


def test_a_difference_alone(visit, report, exhibit):
    sample = exhibit.samples[1]
    tab = visit(f"{report}#view=image&image={sample.name}&show=difference-student")
    wait_for_picture(tab)
    legend = tab.locator("#keys")
    assert "Solid white boxes" in legend.inner_text() and "dashed" not in legend.inner_text()  # none are drawn here
    box = canvas(tab, "difference-student").bounding_box()
    bar = tab.locator(".scale").bounding_box()
    assert box["width"] < 1000 and (bar["x"], bar["width"]) == pytest.approx((box["x"], box["width"]), abs=1)
    x1, y1, x2, y2 = sample.predictions["student"][0].box
    factor = box["width"] / sample.frame.picture[1]
    middle = {"x": (x1 + x2) / 2 * factor, "y": (y1 + y2) / 2 * factor}
    canvas(tab, "difference-student").hover(position=middle)
    told = tab.locator("#readout").inner_text().partition("Predicted: ")[2]
    for key in ("teacher", "student"):
        assert f"{key} {sample.predictions[key][0].name} {sample.predictions[key][0].score:.2f}" in told
    assert "−0.25" in tab.locator("#own-figures").inner_text() and "-0" not in tab.locator("#own-figures").inner_text()
    tab.get_by_label("Student", exact=True).check()
    assert "dashed cyan boxes" in legend.inner_text()
    tab.mouse.move(0, 0)
    tab.get_by_label("Predictions").uncheck()
    assert "dashed" not in legend.inner_text()


def test_keys_step_and_the_address_restores(visit, report):
    tab = visit(report)
    tab.locator("#gallery button").first.click()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    assert tab.locator("#pick").input_value() == "0"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("]")
    assert tab.locator("#image-title").inner_text() == "scene0001, P4"
    canvas(tab, "student").focus()
    tab.keyboard.press("ArrowRight")  # moves the cross-hair, not the image
    before = tab.locator("#readout").inner_text()
    tab.keyboard.press("Shift+ArrowDown")
    assert before.startswith("At x 80.8, y 60.0") and "y 68.0" in tab.locator("#readout").inner_text()
    tab.keyboard.press("]")
    assert tab.evaluate("document.activeElement.tagName") == "CANVAS"  # focus outlives the new panels
    again = visit(tab.url)
    assert again.locator("#image-title").inner_text() == "scene0001, P5"
    tab.go_back()
    assert tab.locator("#image-title").inner_text() == "scene0000, P3"


def test_strangers_names_are_text(visit, report):
    tab = visit(report)
    tab.locator("#missed button", has_text=NASTY).first.click()
    assert tab.locator("#image-title").inner_text().startswith("scene0000")
    assert "object=0" in tab.url and "chosen" in tab.locator("#keys").inner_text()
    assert NASTY.partition("/")[2] in tab.locator("#image-lead").inner_text()  # a slash ends a folder
    assert NASTY in tab.locator("#panels").inner_text()
    assert tab.locator("img[src=x]").count() == 0 and tab.title() != "broken"


def test_silent_pairs_say_so(visit, report, exhibit):
    tab = visit(report)
    assert "P5 tells nothing: matched images" in tab.locator("#silent").inner_text()
    assert tab.locator("#near tbody tr").count() == 3 and "tells nothing" in tab.locator("#near").inner_text()
    assert tab.locator("#chart svg circle").count() == 6  # a student and an untrained one at each pair
    assert "of other images, and a student that was never trained" in tab.locator("#chart-lead").inner_text()


def without(exhibit, word: str):
    """The exhibit without the means in whose name the word is."""
    summary = {
        pair: {key: {name: i for name, i in found.items() if word not in name} for key, found in networks.items()}
        for pair, networks in exhibit.numbers.summary.items()
    }
    return replace(exhibit, numbers=replace(exhibit.numbers, summary=summary))


def test_epochs(visit, tmp_path):
    exhibits = [without(kit.exhibit(images=1, pairs=("P3",), seed=seed), "untrained") for seed in range(3)]
    tab = visit(save_page(exhibits, tmp_path / "t.html", [5, 10, 20]).as_uri() + "#view=image&boxes=none")
    wait_for_picture(tab)
    assert tab.locator("#epoch-name").inner_text() == "20"
    last = pixel(tab, "difference-student")
    tab.locator("#epoch").press("Home")
    assert tab.locator("#epoch-name").inner_text() == "5" and "epoch=5" in tab.url
    means = [one.numbers.summary["P3"]["student"]["distance"].mean for one in exhibits]
    assert pixel(tab, "difference-student") != last
    tab.locator("#to-overview").click()
    assert f"{means[0]:.2f} to {means[2]:.2f}" in tab.locator("#trend").inner_text()
    told = tab.locator("#figures").inner_text().lower()
    assert "other images" in told and not re.search(r"trained|both|–", told)  # nothing of a control that is not there


def test_legible_and_no_wider_than_the_window(visit, report):
    tab = visit(report)
    for width, theme in ((1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme=theme)
        for view in ("overview", "image"):
            tab.locator(f"#to-{view}").click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("document.documentElement.dataset.theme") == theme
            assert tab.evaluate(CONTRAST) == []
    tab.locator("summary").click()
    assert tab.locator("#opacity").is_visible() and tab.evaluate(CONTRAST) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_shows_the_picture_soon(visit, report):
    tab = visit(report)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.locator("#to-image").click()
    for layer in ("P3", "P5"):
        tab.locator("#layer").select_option(layer)
        assert tab.locator("#image-title").inner_text() == f"scene0000, {layer}"
        top = tab.locator("#image").bounding_box()["y"]
        assert tab.locator(".stage canvas").first.bounding_box()["y"] - top <= FIRST
    tab.locator("#show").select_option("difference-student")
    assert tab.locator("#panels figure").count() == 1 and "show=difference-student" in tab.url
    assert not tab.locator("#opacity").is_visible() and not tab.locator("#layers").is_visible()


def test_maps_lie_on_a_grey_picture(visit, tmp_path):
    exhibit = kit.exhibit(images=1, networks=("teacher", "student", "baseline"))
    tab = visit(save_page([exhibit], tmp_path / "r.html").as_uri() + "#view=image&boxes=none&opacity=0")
    wait_for_picture(tab)
    for x, y in ((0.3, 0.3), (0.25, 0.8), (0.8, 0.3)):
        colour = pixel(tab, "picture", x, y)[:3]
        assert max(colour) - min(colour) > 20
        expected = int(backdrop(np.array([[colour]], np.uint8))[0, 0, 0])  # as on the sheets
        for panel in ("teacher", "baseline", "difference-student"):
            red, green, blue, _ = pixel(tab, panel, x, y)
            assert red == green == blue == pytest.approx(expected, abs=3)


def test_one_network(visit, tmp_path):
    exhibit = kit.exhibit(images=1, networks=("student",))
    for word in ("distance", "cosine", "spearman", "overlap", "reference"):
        exhibit = without(exhibit, word)
    exhibit = changed(exhibit, labels=None)
    tab = visit(save_page([exhibit], tmp_path / "r.html").as_uri())
    mean = exhibit.numbers.summary["P3"]["student"]["box_ratio"].mean
    table = tab.locator("#where").inner_text()
    assert f"{mean:.2f}" in table and "model.18" in table and not re.search("teacher|–", table)
    assert "inside the objects' boxes" in tab.locator("#where-lead").inner_text()
    assert not tab.locator("#near").is_visible() and not tab.locator("#distances").is_visible()
    tab.locator("#to-image").click()
    wait_for_picture(tab)
    assert tab.locator("#panels figure").count() == 2


def test_three_networks(visit, tmp_path):
    exhibit = kit.exhibit(images=1, pairs=("P3",), networks=("teacher", "student", "baseline"), height=40)
    tab = visit(save_page([exhibit], tmp_path / "r.html").as_uri())
    found = exhibit.numbers.summary["P3"]
    controls = [found[key]["shuffled_distance"].mean for key in ("student", "baseline")]
    chart = [text for text in tab.locator("#chart svg text").all_text_contents() if text]
    names = [i for i, text in enumerate(chart) if text == "other images"]
    assert [chart[i - 2] for i in names] == ["Student", "Baseline"]  # each below its network
    assert [chart[i + 1] for i in names] == [f"{mean:.2f}" for mean in controls]
    tab.locator("#to-image").click()
    wait_for_picture(tab)
    assert tab.locator("#panels figure").count() == 6
