"""Settings: every value checked at the door, the same from text, YAML and Python; mistakes named with the remedy."""

import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
import yaml

from distill.config import find_config, read_config, settings_from, split
from distill.errors import InputError
from distill.ranges import FORMS, INITS, PRECISIONS
from distill.settings import DEFAULT_SHARE, Settings

# ---- ranges


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("p", [1e-3, 0.5, 1, 2, 7.5], [0, -2.0, math.inf, math.nan]),
        ("init", INITS, ["student", "Teacher", ""]),
        ("form", FORMS, ["L2", "cosine", ""]),
        ("weight", [None, 0, 1e-3, 1000.0], [-0.1, math.inf, math.nan]),
        ("share", [1e-4, 0.2, 5], [0, -0.2, math.inf, math.nan]),
        ("teacher_fraction", [1e-3, 0.5, 1], [0, 1.01, -0.5, math.nan]),
        ("teacher_imgsz", [None, 32, 1280], [31, 0, -640]),
        ("teacher_precision", PRECISIONS, ["float16", "bf16", ""]),
        ("seed", [0, 1, 2**31 - 1], [-1, 2**31, 2**63]),
    ],
)
def test_ranges(key, good, bad):
    for value in good:
        assert getattr(Settings(**{key: value}), key) == value
    for value in bad:
        with pytest.raises(InputError, match=rf"^{key}=.* is out of range: \w"):
            Settings(**{key: value})


def test_a_weight_without_what_it_weighs_is_an_error():
    with pytest.raises(InputError, match="gates_weight=2.0: without --gates it has no effect"):
        settings_from({"gates_weight": 2})
    assert settings_from({"gates_weight": 2, "gates": "truth"}).gates_weight == 2


def test_defaults():
    settings = Settings()
    assert (settings.p, settings.form, settings.share, settings.weight) == (2.0, "l2", DEFAULT_SHARE, None)
    assert (settings.layers, settings.teacher_fraction, settings.seed, settings.trust) == ((), 1.0, 0, False)


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Settings().share = 0.5


def test_every_setting_has_a_type_and_a_line_of_help():
    usual = Settings()
    for setting in fields(Settings):
        assert settings_from({setting.name: None}) == usual  # its type is known
        assert setting.metadata["help"] and setting.metadata["group"], setting.name


def test_plain_types_survive_yaml():
    settings = Settings(teacher="t.pt", layers=("P3", "16:15@2"), weight=0.5, teacher_imgsz=320)
    plain = yaml.safe_load(yaml.safe_dump(settings.as_dict()))
    assert plain == settings.as_dict() and plain["layers"] == ["P3", "16:15@2"]
    assert settings_from(plain) == settings


# ---- typing


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("p", "3", 3.0),
        ("share", "1e-1", 0.1),
        ("weight", "0", 0.0),
        ("weight", "none", None),
        ("weight", None, None),
        ("teacher_imgsz", "640", 640),
        ("teacher_imgsz", 640.0, 640),
        ("teacher_imgsz", "None", None),
        ("seed", "7", 7),
        ("seed", None, 0),
        ("trust", "true", True),
        ("trust", "False", False),
        ("trust", True, True),
        ("layers", "P3,P4", ("P3", "P4")),
        ("layers", " P3 , 16:15@2 ,", ("P3", "16:15@2")),
        ("layers", "", ()),
        ("layers", "none", ("none",)),
        ("layers", 16, ("16",)),
        ("layers", [16, "P4"], ("16", "P4")),
        ("layers", ("P3",), ("P3",)),
        ("device", [0, 1], "0,1"),
        ("device", 0, "0"),
        ("name", "none", "none"),  # text is text
        ("student", "a b.yaml", "a b.yaml"),
    ],
)
def test_loosely_typed_values(key, given, meant):
    value = getattr(settings_from({key: given}), key)
    assert value == meant and type(value) is type(meant)


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("p", "two", "a number"),
        ("p", [2], "a number"),
        ("share", True, "a number"),
        ("seed", "1.5", "a whole number"),
        ("seed", "many", "a whole number"),
        ("seed", "inf", "a whole number"),
        ("seed", math.nan, "a whole number"),
        ("seed", False, "a whole number"),
        ("teacher_imgsz", 640.5, "a whole number"),
        ("teacher_imgsz", {}, "a whole number"),
        ("trust", "yes", "true or false"),
        ("trust", 1, "true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(key, value, needed):
    with pytest.raises(InputError, match=f"^{key}=.*: {needed} is needed"):
        settings_from({key: value})


def test_ranges_hold_for_text_too():
    with pytest.raises(InputError, match=r"teacher_fraction=1.5 is out of range: above 0, at most 1"):
        settings_from({"teacher_fraction": "1.5"})


def test_an_unknown_setting_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown setting 'teacher_frac'; nearest: 'teacher_fraction'"):
        settings_from({"teacher_frac": 0.5})
    with pytest.raises(InputError, match=r"unknown setting 'qqqq'$"):
        settings_from({"qqqq": 1})


# ---- ours and the trainer's


def test_ours_are_told_from_the_trainers():
    ours, theirs = split({"teacher": "t.pt", "epochs": 3, "seed": 1, "lr0": 0.1, "teacher-imgsz": 320})
    assert ours == {"teacher": "t.pt", "seed": 1, "teacher_imgsz": 320}
    assert theirs == {"epochs": 3, "lr0": 0.1}


def test_model_means_student_so_that_a_yolo_line_works():
    assert split({"model": "yolo11n.yaml"}) == ({"student": "yolo11n.yaml"}, {})


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model": "a", "student": "b"}, "student"),
        ({"student": "a", "model": "a"}, "student"),
        ({"teacher_imgsz": 1, "teacher-imgsz": 2}, "teacher_imgsz"),
        ({"close_mosaic": 1, "close-mosaic": 2}, "close_mosaic"),
    ],
)
def test_the_same_thing_twice_is_an_error(values, name):
    with pytest.raises(InputError, match=f"'{name}' is given twice"):
        split(values)


# ---- YAML


def test_a_config_file_is_read(tmp_path):
    file = tmp_path / "six.yaml"
    file.write_text("layers: [6, P3]\nshare: 0.1\nepochs: 25\n16: x\n", encoding="utf-8")
    assert read_config(str(file)) == {"layers": [6, "P3"], "share": 0.1, "epochs": 25, "16": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"layers: [P3", "not readable as YAML"),
        (b"\xff\xfe\xfa", "not readable as YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "not readable as YAML"),  # nothing is run
        (b"- P3\n- P4", "must be a mapping"),
        (b"just words", "must be a mapping"),
        (b"", "must be a mapping"),
    ],
)
def test_a_config_that_cannot_be_used_is_named_in_one_line(tmp_path, content, message):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_config(str(file))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_config_is_named(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):  # a folder is no file
        with pytest.raises(InputError, match=r"--config .*: no such file"):
            read_config(str(path))


def test_a_bare_name_means_a_file_of_the_package(tmp_path, monkeypatch):
    configs = tmp_path / "package" / "configs"
    configs.mkdir(parents=True)
    (configs / "six-layers.yaml").write_text("p: 3", encoding="utf-8")
    monkeypatch.setattr("distill.config.__file__", str(tmp_path / "package" / "config.py"))
    assert find_config("six-layers") == find_config("six-layers.yaml") == configs / "six-layers.yaml"
    with pytest.raises(InputError, match=r"no such file; nearest: 'six-layers'"):
        find_config("six-layer")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "six-layers.yaml").write_text("p: 1", encoding="utf-8")
    assert read_config("six-layers.yaml") == {"p": 1}  # the user's own file comes first


def test_ways_to_say_that_no_outputs_are_transferred():
    for value in ("none", "None", ["none"], (), []):
        assert settings_from({"response": value}).response == ()
    assert settings_from({"response": None}).response == settings_from({"response": "auto"}).response == ("auto",)


def test_paths_are_taken_as_text() -> None:
    ours, theirs = split({"student": Path("a.yaml"), "teacher": Path("t.pt"), "pretrained": Path("p.pt"), "epochs": 3})
    assert ours == {"student": "a.yaml", "teacher": "t.pt"} and theirs == {"pretrained": "p.pt", "epochs": 3}
