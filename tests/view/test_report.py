"""The report as a file: what is in it, what can never be, how large it is. What it does is tested in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from distill.attention.geometry import Lattice
from distill.attention.objects import Object
from distill.jobs.seeing.figures import figures
from distill.view.exhibit import Exhibit, Numbers
from distill.view.report.encode import FINEST, LONGEST, coarse, crop, dumps, half, picture
from distill.view.report.missed import missed
from distill.view.report.page import SCRIPTS, _part, page, save_page
from distill.view.scale import difference, scales
from tests.view import kit

NASTY = "</script><img src=x onerror=alert(1)><!--"
ALL = ("teacher", "student", "baseline")


def blocks(html: str) -> dict:
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.S)
    return {name: json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON")) for name, text in found}


def decode(packed: dict) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(packed["data"]), "<f2").astype(np.float64)
    return values.reshape(packed["shape"]) * packed["factor"]


def changed(exhibit: Exhibit, **sample) -> Exhibit:
    return replace(exhibit, samples=tuple(replace(one, **sample) for one in exhibit.samples))


# ---- encoding


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3e7])
def test_half_keeps_a_map_of_any_magnitude(scale):
    values = (scale * np.random.default_rng(0).random((5, 7))).astype(np.float32)
    np.testing.assert_allclose(decode(half(values)), values, rtol=2**-10, atol=scale * 1e-6)


def test_half_of_a_zero_map_and_of_values_that_are_not_finite():
    assert not decode(half(np.zeros((2, 3), np.float32))).any()
    odd = decode(half(np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32)))
    np.testing.assert_array_equal(odd, [[1, np.nan], [np.inf, 2]])


def test_json_is_free_of_markup_and_of_numbers_that_json_lacks():
    text = dumps({"a": NASTY, "b": [float("nan"), float("inf"), np.float32(1.5)], "c": ("\u2028", None)})
    assert "<" not in text and text.isascii()
    assert json.loads(text) == {"a": NASTY, "b": [None, None, 1.5], "c": ["\u2028", None]}


@pytest.mark.parametrize(("shape", "expected"), [((2000, 1000), (480, 960)), ((3, 5), (5, 3)), ((1, 4000), (960, 1))])
def test_pictures_are_reduced_and_never_enlarged(shape, expected):
    uri = picture(np.full((*shape, 3), 90, np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == expected
    assert max(expected) <= LONGEST


@pytest.mark.parametrize("box", [(0, 0, 4, 4), (60, 40, 64, 44), (-50, -50, -20, -20), (500, 500, 600, 600)])
def test_a_crop_stays_inside_the_picture(box):
    uri = crop(np.zeros((48, 64, 3), np.uint8), box)
    assert min(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size) >= 1


# ---- the page


def test_maps_differences_and_ranges_come_back():
    exhibit = kit.exhibit(images=2, networks=ALL)
    found = blocks(page([exhibit]))
    for index, sample in enumerate(exhibit.samples):
        epoch = found[f"image-{index}"]["epochs"][0]
        for row in exhibit.rows:
            for key in ALL:
                packed, values = epoch["maps"][row.name][key], sample.maps[row.name][key]
                np.testing.assert_allclose(decode(packed), values, rtol=2**-10)
                assert packed["unit"] == pytest.approx(np.sqrt(np.mean(values.astype(float) ** 2)), rel=1e-5)
                assert packed["own"]["low"] == pytest.approx(values.min())
            for key in ALL[1:]:
                expected, lattice = difference(row, sample, key, "teacher", "shared")
                packed = epoch["differences"][row.name][key]["shared"]
                np.testing.assert_allclose(decode(packed), expected, atol=2**-10 * np.abs(expected).max())
                assert packed["lattice"]["offset"] == list(lattice.offset)
    shared = scales([exhibit], "shared")["P3"]
    mode = found["report"]["rows"][0]["modes"]["shared"]
    assert mode["maps"]["high"] == pytest.approx(shared.maps.high)
    assert mode["difference"]["low"] == pytest.approx(shared.difference.low)


def test_strangers_names_stay_text_and_only_our_script_may_run():
    exhibit = changed(kit.exhibit(images=1, classes=(NASTY,)), name=NASTY, file=NASTY)
    html = page([replace(exhibit, title=NASTY)])
    assert "<img" not in html and "onerror" not in html.split('<script type="application/json"')[0].replace(
        "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&lt;!--", ""
    )
    assert html.count("<script") == html.count("</script>") == 3  # the overview, one image, the program
    assert blocks(html)["report"]["title"] == NASTY
    assert re.search(r"script-src 'sha256-[\w+/]{43}='\"", html)


@pytest.mark.parametrize("folder", ["/srv/someone/scenes/", "C:\\Users\\someone\\"])
def test_folders_stay_at_home(folder):
    exhibit = changed(kit.exhibit(images=1), file=f"{folder}one.png")
    networks = tuple(replace(network, file=f"{folder}best.pt") for network in exhibit.networks)
    html = page([replace(exhibit, networks=networks)])
    assert "someone" not in html
    assert blocks(html)["report"]["images"][0]["file"] == "one.png"


def test_nothing_is_asked_of_a_network():
    html = page([kit.exhibit()])
    markup = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.S)
    assert set(re.findall(r"https?://[^\s\"']+", markup)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(
        r"<link(?! rel=\"icon\" href=\"data:,\")|url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", markup
    )
    assert "default-src 'none'" in html


def test_an_image_with_six_layers_and_three_networks_stays_below_two_megabytes():
    exhibit = kit.exhibit(images=1, pairs=("P3", "P4", "P5", "B3", "B4", "B5"), networks=ALL)
    rng = np.random.default_rng(0)
    sample = exhibit.samples[0]
    sizes = {row.name: 960 // kit.STRIDES[row.name] for row in exhibit.rows}  # the usual input is 640
    maps = {name: {key: rng.random((n, n), np.float32) for key in ALL} for name, n in sizes.items()}
    photo = np.asarray(Image.fromarray(rng.integers(0, 256, (160, 160, 3), np.uint8)).resize((1280, 1280)))
    frame = replace(sample.frame, picture=(1280, 1280))
    html = page([replace(exhibit, samples=(replace(sample, maps=maps, picture=photo, frame=frame),))])
    assert len(html) < 2_000_000


def test_a_timeline_carries_the_reference_once_and_checks_what_it_is_given():
    exhibits = [kit.exhibit(images=1, seed=seed) for seed in range(3)]
    found = blocks(page(exhibits, [5, 10, 20]))
    assert found["report"]["epochs"] == [5, 10, 20]
    assert [set(e["maps"]["P3"]) for e in found["image-0"]["epochs"]] == [{"teacher", "student"}] + [{"student"}] * 2
    assert blocks(page(exhibits))["report"]["epochs"] == [1, 2, 3]
    for wrong in ([], [exhibits[0], kit.exhibit(images=2)], [exhibits[0], kit.exhibit(images=1, pairs=("P3",))]):
        with pytest.raises(ValueError, match="exhibit"):
            page(wrong)
    with pytest.raises(ValueError, match="3 exhibits have 3 epochs, not 2"):
        page(exhibits, [1, 2])


def test_a_single_network_has_no_differences():
    found = blocks(page([kit.exhibit(images=1, networks=("student",))]))
    assert found["report"]["reference"] is None
    assert found["image-0"]["epochs"][0]["differences"] == {}
    assert all(mode["difference"] is None for row in found["report"]["rows"] for mode in row["modes"].values())


@pytest.mark.parametrize("networks", [("student",), ALL])
def test_what_may_be_absent_may_be_absent(networks):
    bare = changed(kit.exhibit(networks=networks), labels=None, predictions={}, verdicts={"student": "cat 0.9"})
    found = blocks(page([replace(bare, numbers=Numbers(), title="")]))
    assert found["image-0"]["labels"] is None
    assert found["image-0"]["epochs"][0]["verdicts"] == {"student": "cat 0.9"}
    assert [entry["distance"] for entry in found["report"]["figures"][0]["order"]] == [None] * 3
    empty = blocks(page([replace(bare, samples=(), numbers=Numbers())]))
    assert list(empty) == ["report"]


def test_gates_have_one_difference_for_every_scale():
    exhibit = kit.exhibit(images=1)
    gates = tuple(replace(row, kind="gate") for row in exhibit.rows)
    maps = {row: {key: m / (1 + m) for key, m in maps.items()} for row, maps in exhibit.samples[0].maps.items()}
    found = blocks(page([changed(replace(exhibit, rows=gates), maps=maps)]))
    assert list(found["image-0"]["epochs"][0]["differences"]["P3"]["student"]) == ["shared"]
    assert found["image-0"]["epochs"][0]["maps"]["P3"]["teacher"]["own"]["high"] == 1.0


def test_images_are_ordered_by_the_telling_pairs_alone():
    exhibit = kit.exhibit(images=3)
    distances = {"scene0000": (0.1, 0.9), "scene0001": (0.5, 0.1), "scene0002": (None, 0.1)}
    maps = tuple(
        {"image": image, "pair": pair, "network": "student", "distance": value}
        for image, both in distances.items()
        for pair, value in zip(("P3", "P5"), both)
    )
    found = blocks(page([replace(exhibit, numbers=Numbers(maps=maps, silent={"P5": "why"}))]))
    order = found["report"]["figures"][0]["order"]
    assert [(entry["image"], entry["distance"]) for entry in order] == [(1, 0.5), (0, 0.1), (2, None)]


def test_missed_objects_come_once_the_least_looked_at_first():
    exhibit = kit.exhibit(images=2)

    def line(image, thing, pair, ratio, network="student", status="miss", source="label", teacher=None):
        head = {"image": image, "object": thing, "pair": pair, "network": network, "source": source, "class": "disc"}
        box = {"x1": 0.0, "y1": 0.0, "x2": 9.0, "y2": 9.0}
        return head | box | {"status": status, "ratio": ratio, "teacher_ratio": teacher}

    objects = (
        line("scene0000", 0, "P3", 1.2, teacher=1.1),  # where the teacher looks at nothing either
        line("scene0000", 0, "P4", 1.5, teacher=3.0),
        line("scene0000", 0, "P5", 0.1),  # silent
        line("scene0000", 0, "P4", 3.0, network="teacher", status="hit"),
        line("scene0000", 1, "P3", None),
        line("scene0001", 0, "P3", 0.5, source="prediction"),  # an image without labels: the teacher's objects
        line("scene0001", 1, "P3", 0.2, status="hit"),
        line("scene0001", 2, "P3", 0.1, status="false alarm", source="prediction"),
    )
    found = missed(replace(exhibit, numbers=Numbers(objects=objects, silent={"P5": "why"})))
    short = [(entry["image"], entry["object"], entry["pair"], entry["ratio"], entry["found"]) for entry in found]
    assert short == [(1, 0, "P3", 0.5, None), (0, 0, "P4", 1.5, True), (0, 1, "P3", None, None)]
    assert found[1]["reference_ratio"] == 3.0 and found[0]["total"] == 3
    assert [entry["instead"] for entry in found] == [None] * 3


def test_what_was_found_in_a_missed_objects_place_is_told():
    exhibit = kit.exhibit(images=1)
    (sample,) = exhibit.samples
    wrong = Object(sample.labels[0].box, "another", 0.33)
    sample = replace(sample, predictions={**sample.predictions, "student": (wrong,)})
    exhibit = replace(exhibit, samples=(sample,))
    exhibit = replace(exhibit, numbers=figures(exhibit))
    first = next(entry for entry in missed(exhibit) if entry["object"] == 0)
    assert first["instead"]["name"] == "another" and first["instead"]["score"] == 0.33


def test_saving_replaces_the_file(tmp_path):
    path = tmp_path / "new" / "report.html"
    for title in ("first", "second"):
        assert save_page([replace(kit.exhibit(images=1), title=title)], path) == path
    assert "<title>second</title>" in path.read_text(encoding="utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_the_scripts_can_stand_in_a_page():
    for name in SCRIPTS:
        assert "</script" not in _part(name) and "<!--" not in _part(name)


def test_a_map_of_more_cells_than_a_screen_shows_is_carried_on_a_coarser_grid():
    """Area means, where they were: the mass stays, and so does the place of its centre in the input."""
    values = np.zeros((400, 100), np.float32)
    values[120:130, 70] = 1.0
    lattice = Lattice((0.5, 2.0), (1.0, 4.0))
    shown, moved = coarse(values, lattice)
    assert shown.shape == (FINEST, 100) and shown.mean() == pytest.approx(values.mean())
    for grid, where in ((values, lattice), (shown, moved)):
        rows, columns = np.indices(grid.shape)
        centre = where.centre((rows * grid).sum() / grid.sum(), (columns * grid).sum() / grid.sum())
        assert centre == pytest.approx((125.0, 282.0), abs=0.01)
    small = np.ones((3, 5), np.float32)
    assert coarse(small, lattice) == (small, lattice)
