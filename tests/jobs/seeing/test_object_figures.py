"""The table of objects: what is an object, who found it, and the figures that go with it."""

from dataclasses import replace

import numpy as np
import pytest

from distill.attention.geometry import Frame, Lattice
from distill.attention.objects import Object, focus
from distill.jobs.seeing.object_figures import OBJECT_COLUMNS, object_rows
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Network, Row, Sample, Side

FRAME = Frame((32, 48), (32, 48), (1.0, 1.0), (0.0, 0.0))
LATTICE = Lattice((4.0, 4.0), (8.0, 8.0))
LEFT, RIGHT = Object((0, 0, 16, 16), "disc"), Object((30, 16, 48, 32), "ring")
FOUND, EXTRA = replace(LEFT, score=0.8), Object((16, 16, 24, 24), "disc", 0.4)


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((4, 6), dtype=np.float32)


def exhibit(
    keys: tuple[str, ...] = (TEACHER, STUDENT, BASELINE),
    labels: tuple[Object, ...] | None = (LEFT, RIGHT),
    predictions: dict[str, tuple[Object, ...]] | None = None,
) -> Exhibit:
    found = {TEACHER: (FOUND, replace(RIGHT, score=0.9)), STUDENT: (EXTRA, FOUND), BASELINE: ()}
    found = found if predictions is None else predictions
    rows = tuple(Row(name, {key: Side("m", "C2f", 8, (4, 6), LATTICE) for key in keys}) for name in ("P3", "P4"))
    maps = {"P3": {key: values(i) for i, key in enumerate(keys)}, "P4": {key: values(9) for key in keys}}
    sample = Sample("a", "a.png", np.zeros((32, 48, 3), np.uint8), FRAME, maps, labels, found)
    return Exhibit(tuple(Network(key, key) for key in keys), rows, (sample,))


def table(shown: Exhibit) -> list[dict]:
    return [row for sample in shown.samples for row in object_rows(shown, sample)]


def of(rows: list[dict], network: str, *columns: str, pair: str = "P3") -> list[tuple]:
    return [
        tuple(row[column] for column in columns) for row in rows if (row["network"], row["pair"]) == (network, pair)
    ]


def test_labels_are_objects_of_every_network():
    rows = table(exhibit())
    columns = "object", "source", "class", "status", "score"
    assert of(rows, TEACHER, *columns) == [
        (0, "label", "disc", "hit", 0.8),
        (1, "label", "ring", "hit", 0.9),
    ]
    assert of(rows, STUDENT, *columns) == [
        (0, "label", "disc", "hit", 0.8),
        (1, "label", "ring", "miss", None),
        (2, "prediction", "disc", "false alarm", 0.4),
    ]
    assert [status for (status,) in of(rows, BASELINE, "status")] == ["miss", "miss"]
    assert len(rows) == 2 * (2 + 3 + 2)


def test_columns():
    for row in table(exhibit()):
        assert tuple(row) == OBJECT_COLUMNS
    row = table(exhibit())[1]
    assert (row["image"], row["pair"], row["size"]) == ("a", "P3", "small")
    assert (row["x1"], row["y1"], row["x2"], row["y2"]) == RIGHT.box


def test_figures_are_of_the_networks_own_map():
    shown = exhibit()
    for index, thing in enumerate((LEFT, RIGHT, EXTRA)):
        maps = shown.samples[0].maps["P3"]
        mine, theirs = (focus(maps[key], LATTICE, FRAME, thing.box) for key in (STUDENT, TEACHER))
        row = next(r for r in table(shown) if (r["network"], r["object"], r["pair"]) == (STUDENT, index, "P3"))
        for name, value in vars(mine).items():
            assert row[name] == value
        assert row["teacher_ratio"] == theirs.ratio
        assert row["ratio_gap"] == pytest.approx(theirs.ratio - mine.ratio)
    assert of(table(shown), STUDENT, "ratio_gap", pair="P4") == [(0,), (0,), (0,)], "equal maps"
    assert of(table(shown), TEACHER, "teacher_ratio", "ratio_gap") == [(None, None), (None, None)]


def test_without_labels_the_teachers_predictions_are_the_objects():
    rows = table(exhibit(labels=None))
    columns = "source", "class", "status", "score"
    assert of(rows, TEACHER, *columns) == [("prediction", "disc", "hit", 0.8), ("prediction", "ring", "hit", 0.9)]
    assert of(rows, STUDENT, *columns) == [("prediction", "disc", "hit", 0.8), ("prediction", "ring", "miss", None)]


def test_an_image_labelled_as_empty():
    rows = table(exhibit(labels=()))
    assert {row["status"] for row in rows} == {"false alarm"}
    assert of(rows, STUDENT, "object", "class") == [(0, "disc"), (1, "disc")]
    assert of(rows, BASELINE, "object") == []


def test_without_predictions_nothing_is_judged():
    rows = table(exhibit(predictions={}))
    assert {(row["status"], row["score"]) for row in rows} == {(None, None)}
    assert len(rows) == 2 * 3 * 2
    assert table(exhibit(labels=None, predictions={})) == []


@pytest.mark.parametrize("labels", [(LEFT,), None])
def test_a_single_network(labels):
    rows = table(exhibit((STUDENT,), labels=labels, predictions={STUDENT: (FOUND,)}))
    assert of(rows, STUDENT, "status", "teacher_ratio", "ratio_gap") == [("hit", None, None)]
    assert rows[0]["ratio"] > 0


def test_a_zero_map_has_no_ratio_and_no_gap():
    shown = exhibit()
    shown.samples[0].maps["P3"][STUDENT][:] = 0
    row = next(row for row in table(shown) if row["network"] == STUDENT)
    assert row["teacher_ratio"] > 0
    assert (row["energy"], row["ratio"], row["pointing"], row["ratio_gap"]) == (None, None, None, None)
    assert row["share"] == pytest.approx(16 * 16 / 32 / 48)
