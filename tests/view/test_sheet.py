"""Sheets: every panel shows what it says, where it is, in colours that compare, and no text covers another."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from distill.attention.objects import Object
from distill.errors import InputError
from distill.view import canvas
from distill.view.boxes import Area, styles
from distill.view.canvas import ELLIPSIS, backdrop, blend, fit, measure, resized, wrapped
from distill.view.exhibit import Exhibit, Numbers, Sample
from distill.view.scale import lut
from distill.view.sheet.drawing import save_sheet, save_sheets, sheet
from distill.view.sheet.table import lines
from tests.view import kit

NETWORKS = (("teacher", "student", "baseline"), ("teacher", "student"), ("student",))
ALL = ("P3", "P4", "P5", "B3", "B4", "B5")


def panels(figure: Figure) -> dict[str, np.ndarray]:
    """The pictures on a sheet by name, (h, w, 3) uint8."""
    return {image.get_gid(): np.asarray(image.get_array()) for image in figure.axes[0].images}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def with_maps(exhibit: Exhibit, change) -> Exhibit:
    """The exhibit with every map replaced by `change(values, network key)`."""
    samples = tuple(
        replace(s, maps={r: {k: change(v, k) for k, v in maps.items()} for r, maps in s.maps.items()})
        for s in exhibit.samples
    )
    return replace(exhibit, samples=samples)


def strange(networks: tuple[str, ...]) -> Exhibit:
    """Long names with signs that mean something to a type-setter, crowded oriented boxes, zero and constant maps."""
    plain = kit.exhibit(
        images=1, networks=networks, classes=tuple(f"{i} ${'long name ' * 9}^{{{i}}}$" for i in range(9))
    )
    sample, rng = plain.samples[0], np.random.default_rng(0)
    name = sample.labels[0].name
    crowd = tuple(
        Object((x, y, x + 14, y + 9), name, float(rng.random()), ((x, y), (x + 14, y + 4), (x + 12, y + 9), (x, y + 5)))
        for x in range(0, 150, 20)
        for y in range(0, 110, 16)
    )
    maps = dict(sample.maps)
    maps["P4"] = {key: values / values.max() for key, values in maps["P4"].items()}
    maps["P5"] = {key: values * 0 + 3 * i for i, (key, values) in enumerate(maps["P5"].items())}
    sides = {k: replace(v, layer="model.22." + "cv2." * 30, type="Deep" * 20) for k, v in plain.rows[0].sides.items()}
    rows = (replace(plain.rows[0], sides=sides), replace(plain.rows[1], kind="gate"), plain.rows[2])
    sample = replace(
        sample, name="n" * 300, file="$a\n\t\x00中文/" + "x" * 500, maps=maps, labels=None,
        predictions={**sample.predictions, networks[0]: crowd}, verdicts={networks[-1]: "tabby cat $0.9$ " * 9},
    )  # fmt: skip
    return replace(
        plain, samples=(sample,), rows=rows, title="$t$ " * 200,
        networks=tuple(replace(one, title="runs/" * 40 + one.title) for one in plain.networks),
        numbers=replace(plain.numbers, silent={"P3": "because " * 60}),
    )  # fmt: skip


# ---- what the panels show


def test_a_panel_is_its_map_in_the_rows_colours_over_the_grey_picture():
    exhibit = with_maps(kit.exhibit(images=1, pairs=("P3",)), lambda values, key: values * 0 + 2)
    shown = panels(sheet(exhibit, exhibit.samples[0], opacity=0.25))
    under = backdrop(resized(exhibit.samples[0].picture, shown["P3 teacher"].shape[:2]))
    colour = np.broadcast_to(lut("inferno")[255], under.shape)  # a flat map is 1 and the highest there is
    assert (shown["P3 teacher"] == blend(under, colour, 0.25)).all()


@pytest.mark.parametrize("networks", NETWORKS)
def test_there_is_a_panel_for_each_network_and_difference(networks: tuple[str, ...]):
    exhibit = kit.exhibit(images=1, networks=networks, pairs=("P4",))
    found = set(panels(sheet(exhibit, exhibit.samples[0]))) - {"bar"}
    pictures = {f"picture {key}" for key in (*networks, "labels")}
    maps = {f"P4 {key}" for key in networks}
    more = {f"P4 {key} − teacher" for key in networks[1:]} or {"P4 alone"}
    assert found == pictures | maps | more


def test_a_point_lies_at_its_place_in_the_panel():
    exhibit = kit.exhibit(images=1, pairs=("P4",))
    sample, lattice = exhibit.samples[0], exhibit.rows[0].sides["teacher"].lattice
    hot = np.full_like(sample.maps["P4"]["teacher"], 0.01)
    hot[6, 13] = 1
    exhibit = with_maps(exhibit, lambda values, key: hot)
    panel = panels(sheet(exhibit, exhibit.samples[0], "raw", opacity=1.0))["P4 teacher"].astype(float).sum(axis=2)
    rows, columns = np.nonzero(panel > panel.min() + 0.7 * np.ptp(panel))
    factor = panel.shape[1] / sample.picture.shape[1]
    place = np.array([rows.mean() + 0.5, columns.mean() + 0.5]) / factor
    assert place == pytest.approx(sample.frame.to_picture(*lattice.centre(6, 13)), abs=0.5)


def test_a_networks_magnitude_changes_only_raw_panels():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    louder = with_maps(exhibit, lambda values, key: values * (9 if key == "student" else 1))
    for mode, same in (("shared", True), ("raw", False), ("each", True)):
        a, b = (panels(sheet(one, one.samples[0], mode))["P3 student"].astype(int) for one in (exhibit, louder))
        change = np.abs(a - b).max()
        assert change <= canvas.STEP if same else change > 10 * canvas.STEP  # a step: rounding


def test_equal_maps_look_equal_and_differ_by_nothing():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    teacher = exhibit.samples[0].maps
    twins = replace(
        exhibit.samples[0], maps={row: dict.fromkeys(maps, maps["teacher"]) for row, maps in teacher.items()}
    )
    shown = panels(sheet(replace(exhibit, samples=(twins,)), twins, opacity=1.0))
    assert (shown["P3 teacher"] == shown["P3 student"]).all()
    assert len(np.unique(shown["P3 student − teacher"].reshape(-1, 3), axis=0)) == 1


def test_red_is_where_the_student_attends_more():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    left = np.zeros((32, 40), np.float32) + 0.1
    left[:, :20] = 1
    exhibit = with_maps(exhibit, lambda values, key: left if key == "student" else left[:, ::-1].copy())
    shown = panels(sheet(exhibit, exhibit.samples[0], opacity=1.0))["P3 student − teacher"].astype(int)
    height, width = shown.shape[:2]
    red = shown[..., 0] - shown[..., 2]
    assert red[height // 2, width // 8] > 50
    assert red[height // 2, -width // 8] < -50


def test_the_sheets_of_an_exhibit_share_their_scales():
    exhibit = kit.exhibit(images=2, pairs=("P3",))
    bars = [
        [text for text in texts(sheet(exhibit, sample)) if re.fullmatch(r"−?[\d.]+", text)][-4:]
        for sample in exhibit.samples
    ]
    assert len(bars[0]) == 4
    assert bars[0] == bars[1]


# ---- what stands beside them


@pytest.mark.parametrize(("mode", "word"), [("shared", "norm 1"), ("raw", "raw"), ("each", "NOT comparable")])
def test_the_scale_is_named_on_the_sheet(mode: str, word: str):
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    assert any("Scale" in text and word in text for text in texts(sheet(exhibit, exhibit.samples[0], mode)))


def test_an_unknown_mode_is_an_error():
    exhibit = kit.exhibit(images=1)
    with pytest.raises(InputError, match="shared, raw, each"):
        sheet(exhibit, exhibit.samples[0], "minmax")


def test_unknown_labels_are_not_an_empty_image():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    sample = exhibit.samples[0]
    assert "none known for this image" in texts(sheet(exhibit, replace(sample, labels=None)))
    assert "0 objects" in texts(sheet(exhibit, replace(sample, labels=())))


def test_a_pair_that_tells_nothing_is_marked():
    exhibit = kit.exhibit(images=1)
    (why,) = exhibit.numbers.silent.values()
    found = texts(sheet(exhibit, exhibit.samples[0]))
    assert found.count("Warning: P5 tells nothing (see below)") == 1
    assert f"P5 tells nothing: {why}." in " ".join(found)  # in full, on as many lines as it takes


@pytest.mark.parametrize("networks", NETWORKS)
def test_controls_are_explained_where_there_is_a_teacher(networks: tuple[str, ...]):
    exhibit = kit.exhibit(images=1, networks=networks, pairs=("P3",))
    assert any("never trained" in text for text in texts(sheet(exhibit, exhibit.samples[0]))) == (len(networks) > 1)


def test_a_map_without_a_shape_says_so():
    exhibit = with_maps(kit.exhibit(images=1), lambda values, key: values * 0)
    assert texts(sheet(exhibit, exhibit.samples[0])).count("0 everywhere") == 6


def test_figures_that_do_not_exist_are_not_shown_as_zero():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    sample, row = exhibit.samples[0], exhibit.rows[0]
    found = {"image": sample.name, "pair": "P3", "network": "student"}

    def shown(**figures: float | None) -> list[str]:
        return lines(replace(exhibit, numbers=Numbers(maps=(found | figures,))), sample, row)

    assert shown() == []
    assert shown(distance=None, cosine=float("nan")) == []
    assert [line.split() for line in shown(distance=0.5, cosine=-0.25, shuffled_distance=0.7)] == [
        ["student", "to", "teacher", "this", "others"],
        ["distance", "0.500", "0.700"],
        ["cosine", "−0.250"],
    ]
    assert shown(distance=0.5, spearman=0.1, untrained_distance=None)[0].split()[-1] == "this"
    assert lines(replace(exhibit, numbers=Numbers()), sample, row) == []


# ---- boxes


def test_a_class_has_one_style_on_all_sheets():
    exhibit = kit.exhibit(images=3)
    look = styles(exhibit)
    assert len(set(look.values())) == len(look)
    many = kit.exhibit(images=3, classes=tuple(map(str, range(20))))
    assert len(set(styles(many).values())) == len(styles(many))  # colours come back with other dashes


def test_an_oriented_box_is_drawn_by_its_corners():
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    corners = ((10.0, 50.0), (40.0, 60.0), (35.0, 75.0), (5.0, 65.0))
    sample = replace(exhibit.samples[0], labels=(Object((5, 50, 40, 75), "disc", None, corners),), predictions={})
    figure = sheet(exhibit, sample)
    image = next(one for one in figure.axes[0].images if one.get_gid() == "picture labels")
    left, _, _, top = image.get_extent()
    factor = image.get_array().shape[1] / sample.picture.shape[1]
    expected = np.array(corners) * factor + (left, top)
    assert any(patch.get_xy()[:4] == pytest.approx(expected) for patch in figure.axes[0].patches)


def test_areas_overlap_and_contain():
    area = Area(0, 0, 10, 10)
    assert area.overlaps(Area(9, 9, 5, 5))
    assert not area.overlaps(Area(10, 0, 5, 5))
    assert area.contains(Area(0, 0, 10, 10))
    assert not area.contains(Area(1, 1, 10, 2))


# ---- layout


@pytest.mark.parametrize("mode", ["shared", "each"])
@pytest.mark.parametrize("networks", NETWORKS)
def test_no_text_covers_another_or_leaves_the_page(networks: tuple[str, ...], mode: str):
    exhibit = strange(networks)
    figure = sheet(exhibit, exhibit.samples[0], mode)
    renderer = figure.canvas.get_renderer()
    shown = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in shown]
    edges = np.array([(b.x0, b.y0, b.x1, b.y1) for b in boxes])
    assert edges.min() >= 0
    assert (edges[:, 2] <= figure.bbox.width).all()
    assert (edges[:, 3] <= figure.bbox.height).all()
    inner = edges + np.array((1, 2.5, -1, -2.5))  # lines may touch
    for i, (x0, y0, x1, y1) in enumerate(inner):
        covered = (inner[:, 0] < x1) & (inner[:, 2] > x0) & (inner[:, 1] < y1) & (inner[:, 3] > y0)
        covered[i] = False
        assert not covered.any(), (shown[i].get_text(), [shown[k].get_text() for k in np.flatnonzero(covered)])


@pytest.mark.parametrize("shape", [(480, 640), (640, 427), (32, 32), (20, 900), (900, 20), (1, 1)])
def test_pictures_of_any_shape_keep_it(shape: tuple[int, int]):
    exhibit = kit.exhibit(images=1, pairs=("P3",))
    sample = exhibit.samples[0]
    frame = replace(sample.frame, picture=shape)
    sample = replace(sample, picture=np.zeros((*shape, 3), np.uint8), frame=frame, labels=(), predictions={})
    figure = sheet(exhibit, sample)
    figure.canvas.draw()
    height, width = panels(figure)["P3 teacher"].shape[:2]
    assert max(height, width) == 340
    assert (height, width) == pytest.approx(np.array(shape) * 340 / max(shape), abs=0.51)


@pytest.mark.parametrize("width", [5, 40, 100, 250])
def test_a_long_name_keeps_its_ends(width: int):
    name = "first part of a long name and its last part"
    short = fit(name, width, 9)
    assert measure(short, 9) <= width or short == ELLIPSIS
    head, tail = short.split(ELLIPSIS)
    assert name.startswith(head)
    assert name.endswith(tail)
    assert fit(name, 1000, 9) == name


@pytest.mark.parametrize("width", [5, 60, 200, 2000])
def test_a_long_text_is_wrapped_and_loses_no_word(width: int):
    text = "flat, untrained: those of a map that is everywhere alike, and of a student that was never trained."
    found = wrapped(text, width, 8.5)
    assert " ".join(found) == text
    assert all(measure(line, 8.5) <= width or " " not in line for line in found)
    assert (len(found) == 1) == (width == 2000)
    assert wrapped("", width, 8.5) == []


@pytest.mark.parametrize("networks", NETWORKS)
def test_what_is_below_a_sheet_is_never_cut(networks: tuple[str, ...]):
    """A narrow sheet, of one network or two, once lost what `flat` means."""
    exhibit = kit.exhibit(images=1, networks=networks, pairs=("P3",))
    below = " ".join(texts(sheet(exhibit, exhibit.samples[0])))
    assert "Values beyond the ends of a colour bar take its end colours." in below
    assert len(networks) == 1 or "flat, untrained: those of a map that is everywhere alike" in below


def test_characters_that_cannot_be_drawn_leave_a_mark():
    assert fit("a\n中\x00$é", 1000, 9) == "a□□□$é"


# ---- files


def test_a_png_for_each_image(tmp_path: Path):
    exhibit = kit.exhibit(images=2, pairs=("P5",))
    paths = save_sheets(exhibit, tmp_path / "sheets")
    assert [path.name for path in paths] == ["scene0000.png", "scene0001.png"]
    save_sheet(exhibit, exhibit.samples[1], tmp_path / "one.png")
    one, many = (np.asarray(Image.open(path)) for path in (tmp_path / "one.png", paths[1]))
    assert (one == many).all()


def test_six_rows_of_a_noisy_picture_stay_small(tmp_path: Path):
    exhibit = kit.exhibit(images=1, pairs=ALL)
    noise = np.random.default_rng(0).integers(0, 80, exhibit.samples[0].picture.shape, np.uint8)
    sample = replace(exhibit.samples[0], picture=exhibit.samples[0].picture // 2 + noise)
    save_sheet(exhibit, sample, tmp_path / "six.png")
    assert (tmp_path / "six.png").stat().st_size < 1_500_000


def test_sheets_may_be_drawn_in_threads():
    exhibit = kit.exhibit(images=2, pairs=("P5",))

    def pixels(sample: Sample) -> np.ndarray:
        figure = sheet(exhibit, sample)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba()).copy()

    with ThreadPoolExecutor(2) as pool:
        threaded = list(pool.map(pixels, exhibit.samples))
    assert all((a == pixels(sample)).all() for a, sample in zip(threaded, exhibit.samples))


def test_nothing_touches_matplotlibs_global_state():
    for path in Path(canvas.__file__).parent.rglob("*.py"):
        assert "pyplot" not in path.read_text(encoding="utf-8"), path
