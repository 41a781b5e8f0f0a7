"""Which layer teaches which: by role and stride, by what the user wrote, and never by cutting a list short."""

import pytest

from distill.attention.layers import LayerInfo
from distill.attention.pairs import COLUMN, Pair, gate_pairs, pair_layers
from distill.errors import InputError


def layer(name: str, stride: float = 8.0, role: str = "", side: int = 64) -> LayerInfo:
    cells = int(side / stride)
    return LayerInfo(name, "C2f", (1, 16, cells, cells), (stride, stride), 0, (role,) if role else ())


def network(p3: int, p4: int, p5: int, b3: int, b4: int, b5: int) -> list[LayerInfo]:
    """Head inputs and backbone blocks at these numbers, listed out of order, each with two children."""
    tops = [(p5, 32.0, "P5"), (p3, 8.0, "P3"), (p4, 16.0, "P4"), (b3, 8.0, "B3"), (b5, 32.0, "B5"), (b4, 16.0, "B4")]
    return [
        info
        for number, stride, role in tops
        for info in (
            layer(f"model.{number}.cv1", stride),
            layer(f"model.{number}.cv2", stride),
            layer(f"model.{number}", stride, role),
        )
    ]


STUDENT = network(16, 19, 22, 4, 6, 10)  # YOLO11
TEACHER = network(15, 18, 21, 4, 6, 9)  # YOLOv8


def names(pairs: list[Pair]) -> list[tuple[str, str, str]]:
    return [(p.name, p.student.removeprefix("model."), p.teacher.removeprefix("model.")) for p in pairs]


def test_a_glob_of_roles():
    assert names(pair_layers(STUDENT, TEACHER, ["B*"])) == [("B3", "4", "4"), ("B4", "6", "6"), ("B5", "10", "9")]
    assert names(pair_layers(STUDENT, TEACHER, ["P[35]", "p4"])) == [
        ("P3", "16", "15"),
        ("P5", "22", "21"),
        ("P4", "19", "18"),
    ]


def test_by_default_every_head_level_that_both_have_is_paired_by_role():
    pairs = pair_layers(STUDENT, TEACHER)
    assert names(pairs) == [("P3", "16", "15"), ("P4", "19", "18"), ("P5", "22", "21")]
    assert [(p.weight, p.kind, p.column) for p in pairs] == [(1.0, "energy", f"at_P{k}") for k in (3, 4, 5)]
    fewer = [info for info in TEACHER if info.roles != ("P4",)]
    assert names(pair_layers(STUDENT, fewer)) == [("P3", "16", "15"), ("P5", "22", "21")]


def test_without_a_common_head_level_the_backbone_is_paired():
    headless = [info for info in TEACHER if not info.roles or info.roles[0][0] != "P"]
    assert names(pair_layers(STUDENT, headless)) == [("B3", "4", "4"), ("B4", "6", "6"), ("B5", "10", "9")]


def test_without_any_common_level_the_error_lists_what_each_has():
    lonely = [layer("features.7", 64.0, "B6", side=256)]
    with pytest.raises(InputError, match=r"no level \(student P3, P4, P5, B3, B4, B5; teacher B6\).*student:teacher"):
        pair_layers(STUDENT, lonely)
    with pytest.raises(InputError, match="teacher none"):
        pair_layers(STUDENT, [layer("features.7")])


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["P4", "B5"], [("P4", "19", "18"), ("B5", "10", "9")]),
        (["4"], [("4", "4", "4")]),
        (["model.6.cv1"], [("6.cv1", "6.cv1", "6.cv1")]),
        (["16:15"], [("16", "16", "15")]),
        (["P3:B3"], [("16", "16", "4")]),
        (["model.22.cv2:P5"], [("22.cv2", "22.cv2", "21")]),
        (["model.4.*"], [("4.cv1", "4.cv1", "4.cv1"), ("4.cv2", "4.cv2", "4.cv2")]),
        (["model.16.*:model.15.*"], [("16.cv1", "16.cv1", "15.cv1"), ("16.cv2", "16.cv2", "15.cv2")]),
    ],
)
def test_what_the_user_writes(patterns, expected):
    assert names(pair_layers(STUDENT, TEACHER, patterns)) == expected


def test_a_weight_behind_each_kind_of_pattern():
    pairs = pair_layers(STUDENT, TEACHER, ["P3@2", "16:18@0.5", "model.4.*@1e-1", "P5"])
    assert [p.weight for p in pairs] == [2.0, 0.5, 0.1, 0.1, 1.0]


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "two", "1@2"])
def test_a_weight_must_be_a_number_above_zero(weight):
    with pytest.raises(InputError, match=f"'P3@{weight}'.*number above 0"):
        pair_layers(STUDENT, TEACHER, [f"P3@{weight}"])


def test_globs_must_match_as_many_layers_on_both_sides():
    with pytest.raises(InputError, match=r"'model.\*.cv1:model.4.\*' match 6 in the student and 2 in the teacher"):
        pair_layers(STUDENT, TEACHER, ["model.*.cv1:model.4.*"])
    with pytest.raises(InputError, match="match 1 in the student and 2 in the teacher"):
        pair_layers(STUDENT, TEACHER, ["16:model.15.*"])


@pytest.mark.parametrize("patterns", [["P3", "P3"], ["P3", "16:15"], ["model.4.*", "model.4.cv1@3"], ["4", "B3"]])
def test_a_pair_given_twice_is_an_error(patterns):
    with pytest.raises(InputError, match=r"model\.\S+ and model\.\S+ are paired twice"):
        pair_layers(STUDENT, TEACHER, patterns)


def test_one_layer_may_have_two_partners():
    assert len(pair_layers(STUDENT, TEACHER, ["P3", "P3:B3", "B3:P3"])) == 3


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("P6", "layer 'P6' not found in the student; nearest: .*'P3'"),
        ("Q7", "layer 'Q7' not found in the student; it has P3, P4"),  # nothing is similar
        ("P3:P7", "layer 'P7' not found in the teacher; nearest: .*'P5'"),
        ("16", "layer '16' not found in the teacher"),  # the teacher's P3 has another number
        ("16:51", "layer '51' not found in the teacher; nearest: .*'model.15'"),
        ("model.22.cv3", "'model.22.cv3' not found in the student; nearest: .*'model.22.cv2'"),
    ],
)
def test_what_is_not_there_is_named_with_the_network_and_the_nearest(pattern, message):
    with pytest.raises(InputError, match=message):
        pair_layers(STUDENT, TEACHER, [pattern])


def test_a_map_of_one_position_is_an_error():
    """At 32 px a stride of 32 leaves one cell, in either network."""
    small = [layer("model.9", 32.0, "P5", side=32)]
    large = [layer("model.9", 32.0, "P5", side=640)]
    for student, teacher in ((small, large), (large, small), (small, small)):
        with pytest.raises(InputError, match=r"pair P5: a stride of 32 leaves a map of one position.*larger images"):
            pair_layers(student, teacher)
    assert pair_layers(large, large)


def test_a_map_of_one_row_still_carries_attention():
    row = [LayerInfo("model.9", "C2f", (1, 16, 1, 4), (32.0, 32.0), 0, ("P5",))]
    assert pair_layers(row, row)


def test_columns_are_unique_and_fit_the_progress_bar():
    long = [f"model.{i}.attention.blocks.{j}.projection" for i in (3, 13) for j in range(12)]
    layers = [layer(name) for name in long] + STUDENT
    patterns = [*long, *(f"{a}:{b}" for a in long[:3] for b in long[3:6]), "P3", "P3:B3", "P3:B4"]
    pairs = pair_layers(layers, layers, patterns)
    columns = [pair.column for pair in pairs]
    assert len(set(columns)) == len(columns) == len(patterns)
    assert max(map(len, columns)) == COLUMN == 10 and all(column.startswith("at_") for column in columns)
    assert "at_P3" in columns and "at_16" in columns and "at_16#2" in columns


def test_a_shortened_name_keeps_its_ends():
    (pair,) = pair_layers([layer("model.16.m.0.cv1")], [layer("model.16.m.0.cv1")], ["model.16.m.0.cv1"])
    assert pair.name == "16~.cv1"


def test_gates_may_be_named():
    student = [layer("s.2", 4, "G2"), layer("s.3", 8, "G3")]
    teacher = [layer("t.2", 4, "G2"), layer("t.3", 8, "G3")]
    assert [pair.student for pair in gate_pairs("teacher", student, teacher, ["g3"])] == ["s.3"]
    assert [pair.student for pair in gate_pairs("truth", student, only=["G3", "G2"])] == ["s.3", "s.2"]
    with pytest.raises(InputError, match="G4: the student's gates are G2, G3"):
        gate_pairs("truth", student, only=["G4"])
