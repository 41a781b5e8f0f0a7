"""The table of maps and its controls, the summary that comes with it, and what an exhibit without them yields."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.attention.geometry import Frame, Lattice
from distill.attention.maps import AttentionMap
from distill.attention.measures import cosine, distance, effective_area, likeness
from distill.attention.objects import Object
from distill.jobs.seeing.figures import MAP_COLUMNS, STRANGERS, figures
from distill.jobs.seeing.intervals import OF_MASKS
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Network, Row, Sample, Side

ALL = (TEACHER, STUDENT, BASELINE)
Draw = Callable[[np.random.Generator, str, int], np.ndarray]  # (generator, network, image) -> a map


def noise(rng: np.random.Generator, key: str, image: int) -> np.ndarray:
    return rng.random((6, 9), dtype=np.float32)


def peaks(rng: np.random.Generator, key: str, image: int) -> np.ndarray:
    """A peak of its own place for each image, with a little noise; the baseline's is elsewhere."""
    values = 0.1 * rng.random((6, 9), dtype=np.float32)
    values.flat[(7 * image + (20 if key == BASELINE else 0)) % 54] += 1
    return values


def exhibit(
    images: int = 5, keys: tuple[str, ...] = ALL, draw: Draw = peaks, rows: tuple[str, ...] = ("P3",)
) -> Exhibit:
    rng = np.random.default_rng(0)
    lattice = Lattice((4.0, 4.0), (8.0, 8.0))
    sides = {key: Side("model.16", "C3k2", 8, (6, 9), lattice) for key in keys}
    frame = Frame((48, 72), (48, 72), (1.0, 1.0), (0.0, 0.0))
    thing = Object((8, 8, 30, 40), "disc")
    samples = tuple(
        Sample(
            name=f"image{i}",
            file=f"{i}.png",
            picture=np.zeros((48, 72, 3), np.uint8),
            frame=frame,
            maps={row: {key: draw(rng, key, i) for key in keys} for row in rows},
            labels=(thing,),
            predictions={key: (replace(thing, score=0.5),) for key in keys},
        )
        for i in range(images)
    )
    return Exhibit(tuple(Network(key, f"{key}.pt") for key in keys), tuple(Row(row, sides) for row in rows), samples)


def untrained(shown: Exhibit) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {s.name: {row.name: noise(rng, STUDENT, 0) for row in shown.rows} for s in shown.samples}


def attention(shown: Exhibit, image: int, key: str, row: str = "P3") -> AttentionMap:
    return AttentionMap(torch.from_numpy(shown.samples[image].maps[row][key])[None], "x", shown.rows[0].kind)


def test_a_row_per_image_pair_and_network_compared():
    shown = exhibit(3, rows=("P3", "P4"))
    found = figures(shown, untrained(shown)).maps
    expected = [(f"image{i}", pair, key) for i in range(3) for pair in ("P3", "P4") for key in (STUDENT, BASELINE)]
    assert [(row["image"], row["pair"], row["network"]) for row in found] == expected
    for row in found:
        assert tuple(row) == MAP_COLUMNS
        assert all(type(row[column]) is float for column in MAP_COLUMNS[3:] if column not in OF_MASKS)
        assert all(row[column] is None for column in OF_MASKS)


def test_likeness_is_to_the_teachers_map_of_the_same_image():
    shown = exhibit()
    row = figures(shown).maps[2]  # of the second image
    mine, theirs = (attention(shown, 1, key) for key in (STUDENT, TEACHER))
    for name, value in likeness(theirs, mine).items():
        assert row[name] == pytest.approx(value.item())
    assert row["area"] == pytest.approx(effective_area(mine).item())
    assert row["reference_area"] == pytest.approx(effective_area(theirs).item())


def test_shuffled_is_the_mean_over_other_images():
    shown = exhibit(4)
    row = figures(shown).maps[0]
    for name, measure in {"shuffled_distance": distance, "shuffled_cosine": cosine}.items():
        each = [measure(attention(shown, 0, STUDENT), attention(shown, i, TEACHER)).item() for i in (1, 2, 3)]
        assert row[name] == pytest.approx(np.mean(each))


def test_shuffled_with_some_of_many_images():
    shown = exhibit(STRANGERS + 5, keys=(TEACHER, STUDENT), draw=noise)
    first, again, other = (figures(shown, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.maps[0]["shuffled_distance"] != other.maps[0]["shuffled_distance"]
    assert first.maps[0]["distance"] == other.maps[0]["distance"]


def test_untrained_is_to_the_teacher():
    shown = exhibit()
    initial = untrained(shown)
    del initial["image1"]
    rows = figures(shown, initial).maps
    first = AttentionMap(torch.from_numpy(initial["image0"]["P3"])[None], "x")
    expected = distance(first, attention(shown, 0, TEACHER)).item()
    assert [rows[i]["untrained_distance"] for i in (0, 1)] == pytest.approx([expected] * 2), "for both students"
    assert (rows[2]["untrained_distance"], rows[2]["untrained_cosine"]) == (None, None)


def test_inputs_and_grids_of_different_shape_meet():
    shown = exhibit(3, keys=(TEACHER, STUDENT), draw=noise)
    shown.samples[0].maps["P3"][STUDENT] = np.ones((3, 9), np.float32)  # coarser than the teacher's
    for key in shown.samples[1].maps["P3"]:
        shown.samples[1].maps["P3"][key] = np.ones((9, 6), np.float32)  # an upright image
    for row in figures(shown, untrained(shown)).maps:
        assert row["shuffled_distance"] > 0
        assert row["untrained_distance"] > 0


def test_gates_are_not_normalised():
    shown = exhibit(2, keys=(TEACHER, STUDENT))
    shown = replace(shown, rows=(replace(shown.rows[0], kind="gate"),))
    for sample in shown.samples:
        sample.maps["P3"][TEACHER] = np.full((6, 9), 0.75, np.float32)
        sample.maps["P3"][STUDENT] = np.full((6, 9), 0.25, np.float32)
    row = figures(shown).maps[0]
    assert row["distance"] == row["shuffled_distance"] == pytest.approx(0.5 * math.sqrt(54))
    assert row["spearman"] is None


def test_one_image_has_no_other():
    shown = exhibit(1, keys=(TEACHER, STUDENT))
    found = figures(shown)
    assert found.maps[0]["shuffled_distance"] is None
    assert found.maps[0]["distance"] > 0
    assert found.summary["P3"][STUDENT]["distance"].low is None
    assert found.silent == {}


def test_no_image():
    found = figures(exhibit(0))
    assert (found.maps, found.objects, found.silent) == ((), (), {})
    assert found.summary == {"P3": {key: {} for key in ALL}}


def test_a_single_network_has_its_area_alone():
    found = figures(exhibit(4, keys=(STUDENT,)), {})
    for row in found.maps:
        known = [column for column in MAP_COLUMNS if row[column] is not None]
        assert known == ["image", "pair", "network", "area"]
    assert list(found.summary["P3"]) == [STUDENT]
    assert {"area", "box_ratio", "box_ratio:hit"} <= set(found.summary["P3"][STUDENT])
    assert "box_ratio_gap" not in found.summary["P3"][STUDENT]
    assert found.silent == {}


def test_summary_of_the_teacher():
    shown = exhibit()
    found = figures(shown, untrained(shown))
    teacher, student = (found.summary["P3"][key] for key in (TEACHER, STUDENT))
    assert teacher["area"] == student["reference_area"]
    assert {"box_energy", "box_share", "box_ratio", "box_ratio:hit", "box_ratio:small"} <= set(teacher) <= set(student)
    assert {"distance", "box_ratio_gap"} & set(teacher) == set()
    assert teacher["box_ratio"].mean - student["box_ratio"].mean == pytest.approx(student["box_ratio_gap"].mean)
    assert student["distance"].mean == pytest.approx(
        np.mean([row["distance"] for row in found.maps if row["network"] == STUDENT])
    )


def test_controls_tell_maps_from_noise():
    telling, nothing = (exhibit(8, draw=draw) for draw in (peaks, noise))
    assert figures(telling, untrained(telling)).silent == {}, (
        "the student follows the teacher; the baseline is not asked"
    )
    assert "maps of other images" in figures(nothing, untrained(nothing)).silent["P3"]


def test_the_baseline_is_judged_for_itself():
    shown = exhibit(8)
    for sample in shown.samples:  # it looks the other way, whatever the image
        sample.maps["P3"][BASELINE][:] = sample.maps["P3"][TEACHER].max() - sample.maps["P3"][TEACHER]
    found = figures(shown)
    assert found.silent == {}
    assert "the baseline's distance" in found.silent_baseline["P3"]


def test_a_student_that_is_no_closer_than_an_untrained_one():
    shown = exhibit(8)
    initial = {sample.name: {"P3": sample.maps["P3"][STUDENT]} for sample in shown.samples}
    assert "untrained student" in figures(shown, initial).silent["P3"]


def test_a_flat_map_is_as_far_as_its_angle_to_the_teachers():
    shown = exhibit(4, keys=(TEACHER, STUDENT))
    for row in figures(shown).maps:
        sample = next(one for one in shown.samples if one.name == row["image"])
        teacher = sample.maps["P3"][TEACHER].astype(float)
        cosine = teacher.sum() / np.linalg.norm(teacher) / np.sqrt(teacher.size)
        assert row["flat_cosine"] == pytest.approx(cosine, rel=1e-5)
        assert row["flat_distance"] == pytest.approx(np.sqrt(2 - 2 * cosine), rel=1e-4)


def test_how_much_nearer_than_the_baseline():
    shown = exhibit(6)
    found = figures(shown)
    by = {(row["image"], row["network"]): row["distance"] for row in found.maps}
    gains = [by[sample.name, "baseline"] - by[sample.name, "student"] for sample in shown.samples]
    assert found.summary["P3"]["student"]["nearer"].mean == pytest.approx(np.mean(gains))
    assert "nearer" not in found.summary["P3"]["baseline"]


def test_zero_maps_have_no_figures():
    shown = exhibit(4, keys=(TEACHER, STUDENT))
    for sample in shown.samples:
        sample.maps["P3"][STUDENT][:] = 0
    found = figures(shown, untrained(shown))
    for row in found.maps:
        known = {column for column in MAP_COLUMNS[3:] if row[column] is not None}
        assert known == {"reference_area", "flat_distance", "flat_cosine", "untrained_distance", "untrained_cosine"}
    assert "distance" not in found.summary["P3"][STUDENT]
    assert found.silent == {}
