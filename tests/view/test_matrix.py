"""The picture of the matrices: every number where it belongs, suggested cells framed, nothing cut off."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from distill.view.matrix import Matrix, matrix_figure


def figure(rows: int, columns: int, **more):
    values = np.linspace(-0.3, 1, rows * columns).reshape(rows, columns)
    matrices = [Matrix("likeness", values), Matrix("difference", -values, -1, 1, "RdBu_r")]
    return matrix_figure(matrices, [f"r{i}" for i in range(rows)], [f"c{i}" for i in range(columns)], **more)


def panels(drawn):
    return [place for place in drawn.axes if place.images]


def test_numbers_and_names_stand_at_their_cells():
    drawn = figure(2, 3, axes=("big", "small"), title="title", caption="first\nsecond")
    first, second = panels(drawn)
    numbers = {text.get_position(): text.get_text() for text in first.texts}
    assert numbers == {(0, 0): "-.30", (1, 0): "-.04", (2, 0): ".22", (0, 1): ".48", (1, 1): ".74", (2, 1): "1.0"}
    assert [label.get_text() for label in first.get_xticklabels()] == ["c0", "c1", "c2"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["r0", "r1"]
    assert [label.get_text() for label in second.get_yticklabels()] in ([], ["", ""])
    assert (first.get_ylabel(), first.get_xlabel()) == ("big", "small")
    assert {"title", "first\nsecond"} <= {text.get_text() for text in drawn.texts}


def test_framed_cells():
    drawn = figure(4, 3, outlined=[(3, 1)])
    for place in panels(drawn):
        frames = [patch for patch in place.patches if isinstance(patch, Rectangle)]
        assert {frame.get_xy() for frame in frames} == {(0.5, 2.5)}
        assert {frame.get_width() for frame in frames} == {1}


def test_unknown_values_have_no_number():
    values = np.array([[np.nan, 0.5]])
    (place,) = panels(matrix_figure([Matrix("m", values)], ["r"], ["a", "b"]))
    assert [text.get_text() for text in place.texts] == [".50"]
    assert place.images[0].get_array().mask.tolist() == [[True, False]]
    assert len(panels(matrix_figure([Matrix("m", np.full((1, 1), np.nan))], ["r"], ["c"]))[0].texts) == 0


def test_ink_differs_from_the_colour_below():
    (place,) = panels(matrix_figure([Matrix("m", np.array([[0.0, 1.0]]))], ["r"], ["a", "b"]))
    assert [text.get_color() for text in place.texts] == ["white", "black"]


def test_small_cells_go_without_numbers():
    drawn = figure(60, 60)
    assert not panels(drawn)[0].texts
    assert drawn.get_figwidth() < 25


@pytest.mark.parametrize(
    ("rows", "columns", "name"), [(4, 4, "r"), (23, 9, "B5 10 C2PSA"), (8, 8, "23.cv2.0.0.act SiLU")]
)
def test_nothing_is_cut_off(rows: int, columns: int, name: str):
    matrices = [Matrix("CKA of the features (debiased; 0: unrelated, 1: alike)", np.ones((rows, columns)))] * 2
    drawn = matrix_figure(matrices, [name] * rows, [name] * columns, title="How alike", caption="one\ntwo\nthree")
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = drawn.bbox
    for place in drawn.axes:
        box = place.get_tightbbox(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
    caption = next(text for text in drawn.texts if text.get_text().startswith("one")).get_window_extent(renderer)
    assert all(caption.y1 < place.get_tightbbox(renderer).y0 for place in drawn.axes)
    title = next(text for text in drawn.texts if text.get_text() == "How alike").get_window_extent(renderer)
    assert all(title.y0 > place.get_tightbbox(renderer).y1 for place in drawn.axes)
    left, right = (place.get_tightbbox(renderer) for place in panels(drawn) if place.get_title("left"))
    assert left.x1 < right.x0
