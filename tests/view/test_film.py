"""The film and the curves of a training run: one scale for all epochs, and only figures that exist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.view.curves import curves, labelled_epochs, save_curves
from distill.view.exhibit import Exhibit, Interval, Numbers
from distill.view.film import film, save_film
from tests.view import kit


def run(epochs: int, **settings) -> list[Exhibit]:
    """A student whose maps come closer to the teacher's from epoch to epoch."""
    first = kit.exhibit(images=3, **settings)
    exhibits = []
    for epoch in range(epochs):
        share = (epoch + 1) / epochs
        samples = tuple(
            replace(s, maps={r: {**m, "student": share * m["teacher"] + (1 - share) * m["student"][::-1]}
                             for r, m in s.maps.items()})
            for s in first.samples
        )  # fmt: skip
        exhibits.append(replace(first, samples=samples, numbers=figures(first, 1 - share / 2)))
    return exhibits


def figures(exhibit: Exhibit, distance: float) -> Numbers:
    found = {
        "student": {"distance": Interval(distance, distance - 0.1, distance + 0.1, 3),
                    "box_ratio": Interval(2 - distance, None, None, 1)},
        "teacher": {"box_ratio": Interval(3.0, 2.5, 3.5, 3)},
    }  # fmt: skip
    return Numbers(summary={row.name: found for row in exhibit.rows}, silent={"P5": "why"})


# ---- the film


def test_a_film_has_a_frame_for_each_epoch_and_stays_small(tmp_path: Path):
    save_film(run(10), list(range(10)), tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.n_frames == 10
        durations = []
        for frame in range(10):
            gif.seek(frame)
            durations.append(gif.info["duration"])
    assert durations[-1] > durations[0] == durations[-2]
    assert (tmp_path / "film.gif").stat().st_size < 1_500_000


def test_one_scale_serves_all_epochs():
    # in the second epoch the student is much brighter in raw values; the teacher's panels must not change for it
    first = run(2)[0]
    loud = tuple(
        replace(s, maps={r: {**m, "student": 50 * m["student"]} for r, m in s.maps.items()}) for s in first.samples
    )
    before, after = film([first, replace(first, samples=loud)], [1, 2], "raw")
    a, b = (np.stack([np.asarray(one.get_array())[:75, :75] for one in f.axes[0].images if one.get_gid() == ""])
            for f in (before, after))  # fmt: skip
    count = 1 + 3 * 3  # of each image: the picture, then three panels for each pair
    assert len(a) == 2 * count
    teacher = [image * count + 1 + 3 * pair for image in range(2) for pair in range(3)]
    assert (a[teacher] == b[teacher]).all()
    assert (a[np.array(teacher) + 1] != b[np.array(teacher) + 1]).any()


def test_the_epoch_stands_on_its_frame():
    titles = [{text.get_text() for text in frame.axes[0].texts} for frame in film(run(3), [1, 5, 30])]
    assert [{"epoch 1", "epoch 5", "epoch 30"} & title for title in titles] == [{"epoch 1"}, {"epoch 5"}, {"epoch 30"}]


@pytest.mark.parametrize("mode", ["shared", "raw", "each"])
@pytest.mark.parametrize("networks", [("teacher", "student", "baseline"), ("student",)])
def test_films_of_one_or_three_networks(networks: tuple[str, ...], mode: str):
    exhibit = kit.exhibit(images=1, networks=networks, pairs=("P3",))
    (frame,) = film([exhibit], [7], mode)
    frame.canvas.draw()
    panels = [image for image in frame.axes[0].images if image.get_gid() == ""]
    assert len(panels) == 1 + (1 if len(networks) == 1 else 2 if mode == "each" else 3)


def gated(exhibit: Exhibit) -> Exhibit:
    """With a first row of gates that only the student has, and masks instead of boxes."""
    first, *others = exhibit.rows
    rows = (replace(first, kind="gate", sides={"student": first.sides["student"]}), *others)
    samples = []
    for s in exhibit.samples:
        alpha = {"student": s.maps[first.name]["student"] / s.maps[first.name]["student"].max()}
        truth, found = np.zeros((2, *s.picture.shape[:2]), int)
        truth[20:60, 30:80], found[30:70, 30:80] = 1, 1
        masks, dice = {"labels": truth, "student": found}, {"student": {"cell": 0.75}}
        samples.append(replace(s, labels=None, maps={**s.maps, first.name: alpha}, masks=masks, dice=dice))
    return replace(exhibit, rows=rows, samples=tuple(samples), classes=("background", "cell"))


def test_a_layer_that_the_teacher_lacks_has_one_panel():
    (frame,) = film([gated(kit.exhibit(images=1, pairs=("P3", "P4")))], [1])
    panels = [image for image in frame.axes[0].images if image.get_gid() == ""]
    assert len(panels) == 1 + 1 + 3
    texts = {text.get_text() for text in frame.axes[0].texts}
    assert {"P3 student", "P4 teacher", "Dice 0.750, scene0000"} <= texts and "P3 teacher" not in texts


def test_gates_are_on_the_fixed_scale_in_every_frame():
    exhibit = gated(kit.exhibit(images=1, pairs=("P3",)))
    half = [replace(s, maps={"P3": {"student": s.maps["P3"]["student"] * 0.5}}) for s in exhibit.samples]
    frames = list(film([exhibit, replace(exhibit, samples=tuple(half))], [0, 3]))
    full, dim = (np.asarray(f.axes[0].images[1].get_array(), float).mean() for f in frames)
    assert dim < full  # were each epoch on a scale of its own, they would be equal
    assert "gates as they are, from 0 to 1" in {text.get_text() for text in frames[0].axes[0].texts}


def test_a_plane_is_drawn_by_its_own_lattice():
    exhibit = gated(kit.exhibit(images=1, pairs=("P3",)))
    (sample,), row = exhibit.samples, exhibit.rows[0]
    values = np.zeros(sample.maps["P3"]["student"].shape, np.float32)
    values[:, : values.shape[1] // 2] = 1  # bright on the left
    side = row.sides["student"].lattice
    mirrored = replace(side, offset=(side.offset[0], 320 - side.offset[1]), stride=(side.stride[0], -side.stride[1]))
    for lattices, left in (({}, True), ({"P3": {"student": mirrored}}, False)):
        shown = replace(sample, maps={"P3": {"student": values}}, lattices=lattices)
        (frame,) = film([replace(exhibit, samples=(shown,))], [0])
        pixels = np.asarray(frame.axes[0].images[1].get_array(), float).sum(axis=2)
        width = pixels.shape[1] // 2
        assert (pixels[:, :width].mean() > pixels[:, width:].mean()) == left


def test_a_film_of_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one epoch"):
        save_film([], [], tmp_path / "film.gif")
    with pytest.raises(ValueError, match="zip"):
        save_film(run(2), [1], tmp_path / "film.gif")
    assert not (tmp_path / "film.gif").exists()


# ---- the curves


def lines(figure, row: int, column: int) -> dict[str, np.ndarray]:
    axes = figure.axes[row * 3 + column]
    return {line.get_label(): np.column_stack([line.get_xdata(), line.get_ydata()]) for line in axes.lines}


def test_curves_show_the_means_against_the_epochs():
    figure = curves(run(4), [1, 3, 10, 20])
    distance, ratio = lines(figure, 0, 0), lines(figure, 1, 2)
    np.testing.assert_allclose(distance["student"], [(1, 0.875), (3, 0.75), (10, 0.625), (20, 0.5)])
    assert set(distance) == {"student"}  # no controls are known here
    assert ratio["teacher"][:, 1].tolist() == [3] * 4
    assert ratio["student"][-1, 1] == pytest.approx(1.5)


def test_the_bands_are_the_intervals():
    band = curves(run(2), [1, 2]).axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.4, 0.85))


def test_no_panel_cuts_its_curves_off():
    exhibits = run(2)
    for number, exhibit in enumerate(exhibits):  # the last column's are the highest
        summary = dict(exhibit.numbers.summary)
        last = list(summary)[-1]
        found = dict(summary[last]["student"])
        summary[last] = {**summary[last], "student": found | {"distance": Interval(2.0 + number, 1.9, 4.5, 3)}}
        exhibits[number] = replace(exhibit, numbers=replace(exhibit.numbers, summary=summary))
    figure = curves(exhibits, [1, 2])
    for axes in figure.axes[:3]:
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 4.5


def test_a_figure_that_is_missing_leaves_a_gap():
    exhibits = run(3)
    exhibits[1] = replace(exhibits[1], numbers=Numbers())
    values = lines(curves(exhibits, [1, 2, 3]), 0, 0)["student"][:, 1]
    assert np.isnan(values).tolist() == [False, True, False]


def test_a_pair_that_tells_nothing_is_marked_in_its_column():
    marks = ["tells nothing" in " ".join(t.get_text() for t in axes.texts) for axes in curves(run(2), [1, 2]).axes[:3]]
    assert marks == [False, False, True]


def test_curves_of_gates_show_what_is_known_of_them():
    found = {"alpha_mean": Interval(0.9, 0.8, 0.95, 3), "alpha_r": Interval(-0.4, -0.5, -0.3, 3)}
    exhibits = [replace(one, numbers=Numbers(summary={"P3": {"student": found}})) for one in run(2, pairs=("P3",))]
    figure = curves(exhibits, [0, 3])
    assert [axes.get_ylabel() for axes in figure.axes] == ["mean alpha", "alpha's r with the foreground"]
    assert figure.axes[0].get_ylim() == (0, 1)
    assert figure.axes[1].get_ylim()[0] < -0.4 < 0 < figure.axes[1].get_ylim()[1]


def test_the_distance_of_a_gate_has_a_range_of_its_own():
    exhibits = []
    for one in run(2, pairs=("P3", "P4", "P5")):
        rows = (replace(one.rows[0], kind="gate"), *one.rows[1:])
        distances = {"P3": Interval(21.0, 20, 22, 3), "P4": Interval(0.5, 0.4, 0.6, 3), "P5": Interval(0.9, 0.8, 1, 3)}
        summary = {name: {"student": {"distance": distance}} for name, distance in distances.items()}
        summary["P3"]["student"]["alpha_mean"] = Interval(0.9, None, None, 3)
        exhibits.append(replace(one, rows=rows, numbers=Numbers(summary=summary)))
    gate, *others, mean, empty, _ = curves(exhibits, [1, 2]).axes
    assert gate.get_ylim()[1] > 22 and {axes.get_ylim() for axes in others} == {others[0].get_ylim()}
    assert 1 < others[0].get_ylim()[1] < 1.2
    assert mean.get_visible() and not empty.get_visible()  # alpha is a gate's alone
    assert [axes.get_xlabel() for axes in (gate, *others, mean)] == ["", "epoch", "epoch", "epoch"]


def test_curves_are_saved_even_without_a_single_figure(tmp_path: Path):
    bare = [replace(exhibit, numbers=Numbers()) for exhibit in run(2, pairs=("P3",))]
    save_curves(bare, [1, 2], tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 300
    with pytest.raises(ValueError, match="1 exhibits"):
        curves(bare[:1], [1, 2])


@pytest.mark.parametrize(
    ("epochs", "labelled"),
    [([0, 3, 6, 10, 60, 150], [10, 60, 150]), ([0, 1, 2, 3], [0, 1, 2, 3]), ([7], [7]), ([0, 90, 100], [0, 100])],
)
def test_labels_of_epochs_do_not_touch(epochs, labelled):
    assert labelled_epochs(epochs) == labelled
