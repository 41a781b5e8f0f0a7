"""The curves of a training run: what is drawn of its table, where names stand, which epoch is marked."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.view.learning import LINE, _apart, learning, save_learning


def table(epochs: int = 4, classes: tuple[str, ...] = ("front", "back"), pairs: tuple[str, ...] = ()) -> dict:
    found = {"epoch": list(range(1, epochs + 1)), "seconds": [1.0] * epochs, "lr": [0.1] * epochs}
    found |= {"train/task": [2.0 / n for n in found["epoch"]], "val/loss": [3.0 / n for n in found["epoch"]]}
    found |= {f"train/at_{pair}": [0.1 / n for n in found["epoch"]] for pair in pairs}
    for score in ("dice", "iou"):
        found[f"val/{score}"] = [n / (epochs + 1) for n in found["epoch"]]
        found |= {f"val/{score}/{name}": [n / (epochs + 2) for n in found["epoch"]] for name in classes}
    return found


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def words(axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_a_panel_for_each_kind_of_figure():
    figure = learning(table(pairs=("D1", "G2")), "training run one")
    assert titles(figure) == ["loss of the task", "weighted attention losses", "Dice", "IoU"]
    assert [words(axes) for axes in figure.axes] == [
        {"training", "validation"}, {"at_D1", "at_G2"}, {"mean", "front", "back"}, {"mean", "front", "back"}
    ]  # fmt: skip
    assert titles(learning(table())) == ["loss of the task", "Dice", "IoU"]


def test_the_lines_are_the_columns():
    figure = learning(table(pairs=("D1",)))
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xydata(), [(n, 3 / n) for n in (1, 2, 3, 4)])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.1, 0.05, 0.1 / 3, 0.025])
    assert figure.axes[2].get_ylim() == (0, 1)


def test_a_single_class_is_its_own_mean():
    assert words(learning(table(classes=("cell",))).axes[1]) == {"mean"}


def test_the_epoch_is_marked_in_every_panel_and_told_once():
    figure = learning(table(), reached=3)
    dashed = [[line for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes]
    assert [[set(line.get_xdata()) for line in lines] for lines in dashed] == [[{3}]] * 3
    assert [axes.get_title(loc="right") for axes in figure.axes] == ["", "95 % of the end: epoch 3", ""]
    (level,) = (line for line in figure.axes[1].lines if line.get_linestyle() == ":")
    assert list(level.get_ydata()) == pytest.approx([0.95 * 0.8] * 2)


def test_values_that_are_not_there_leave_gaps():
    found = table()
    found["val/dice"][1] = math.nan
    found["val/dice/back"] = [math.nan] * 4
    axes = learning(found).axes[1]
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True, False, False]
    assert words(axes) == {"mean", "front"}


@pytest.mark.parametrize(("loss", "top"), [(2.0, 2.1), (0.0, 1), (math.nan, 1), (math.inf, 1)])
def test_losses_begin_at_nought_and_have_room_above(loss, top):
    found = {**table(), "train/task": [loss] * 4, "val/loss": [loss] * 4}
    assert learning(found).axes[0].get_ylim() == pytest.approx((0, top))


def test_of_many_classes_only_the_ends_are_named():
    found = table(classes=tuple(f"organ {n}" for n in range(12)))
    for n in range(12):
        found[f"val/dice/organ {n}"] = [0.05 * n] * 4
    assert words(learning(found).axes[1]) == {"mean", "organ 0", "organ 11"}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.5 - LINE / 2, 0.5 + LINE / 2]),
        ([0.0, 0.0], [0.0, LINE]),
        ([1.0, 1.0, 1.0], [1 - 2 * LINE, 1 - LINE, 1.0]),
    ],
)
def test_names_stand_apart(places, expected):
    assert _apart(places) == pytest.approx(expected)


def test_names_stay_in_order_and_apart_however_many():
    rng = np.random.default_rng(0)
    for count in range(2, 12):
        gaps = np.diff(_apart(sorted(rng.random(count))))
        assert (gaps > LINE - 1e-9).all()


def test_one_epoch_is_enough_and_none_is_an_error(tmp_path: Path):
    file = save_learning(table(epochs=1), tmp_path / "curves.png", "a very long name of a training run " * 9, 1)
    assert Image.open(file).size[0] > 500 and list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError, match="without epochs"):
        learning({})
