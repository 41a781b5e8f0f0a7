"""Which layers of U-Nets are shown beside each other."""

import pytest

from distill.attention.layers import LayerInfo
from distill.errors import InputError
from distill.jobs.seeing.levels import about, level_rows


def network(*roles):
    return [LayerInfo(f"layer.{role}", "Conv", (1, 4, 8, 8), (2.0, 2.0), 0, (role,)) for role in roles]


PLAIN = network("E1", "E2", "E3", "D1", "D2")
GATED = network("E1", "E2", "E3", "D1", "D2", "G2", "X2")


def shown(layers, *patterns):
    return {
        pair.name: {key: side.name for key, side in sides.items()} for pair, sides in level_rows(layers, list(patterns))
    }


def test_each_gate_stands_between_its_skip_and_what_it_lets_through():
    rows = level_rows({"student": GATED})
    assert [pair.name for pair, _ in rows] == ["E1", "D1", "E2", "G2", "X2", "D2"]
    assert [pair.kind for pair, _ in rows] == ["energy", "energy", "energy", "gate", "energy", "energy"]


def test_without_gates_the_decoder():
    assert list(shown({"teacher": PLAIN, "student": PLAIN})) == ["D1", "D2"]


def test_what_only_one_network_has_is_shown_for_that_one():
    rows = shown({"teacher": PLAIN, "student": GATED, "baseline": PLAIN})
    assert rows["G2"] == {"student": "layer.G2"} == {**rows["X2"], "student": "layer.G2"}
    assert list(rows["E2"]) == ["teacher", "student", "baseline"]


def test_patterns():
    both = {"teacher": PLAIN, "student": GATED}
    assert list(shown(both, "G*", "e3")) == ["G2", "E3"]
    (sides,) = shown(both, "D1:D2").values()
    assert sides == {"teacher": "layer.D2", "student": "layer.D1"}
    (sides,) = shown({"student": GATED, "baseline": PLAIN}, "layer.E1").values()
    assert sides == {"student": "layer.E1", "baseline": "layer.E1"}
    (sides,) = shown({"student": GATED}, "layer.E1").values()
    assert sides == {"student": "layer.E1"}


@pytest.mark.parametrize("patterns", [("P3",), ("G2", "G*"), ("layer.Q",), ("G2:D2",)])
def test_what_is_refused(patterns):
    with pytest.raises(InputError):
        level_rows({"teacher": PLAIN, "student": GATED}, patterns)


def test_rows_say_what_they_are():
    assert about("E2") == "skip of level 2, from the encoder"
    assert about("G3.1").startswith("gate of level 3.1")
    assert about("16.cv2") == "" == about("P3")
