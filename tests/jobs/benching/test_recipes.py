from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from distill.config import settings_from, shipped_configs, split
from distill.errors import InputError
from distill.jobs.benching.recipes import find_recipe, read_arms, resolve, unheard
from distill.settings import Settings

COMMON = {"student": "s.yaml", "data": "d.yaml", "teacher": "t.pt", "epochs": "30"}
SHIPPED = sorted((shipped_configs()[0] / "recipes").glob("*.yaml"))


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_recipe_says_what_it_is_and_holds_known_settings(file: Path) -> None:
    (arm,) = read_arms([file.stem], COMMON)
    assert arm.about.endswith(".") and len(arm.about) > 20
    assert arm.epochs == 30 and arm.values["patience"] == "30" and arm.values["plots"] is False
    settings_from(split(arm.values)[0])


def test_default_says_what_the_defaults_are() -> None:
    given = settings_from(split(yaml.safe_load(find_recipe("default").read_text()))[0])
    assert given == Settings()


def test_the_teacher_goes_where_it_belongs() -> None:
    plain, native, attention = read_arms(["plain", "native-2", "attention"], COMMON)
    assert "teacher" not in plain.values and "teacher" not in native.values
    assert (native.values["distill_model"], native.values["dis"]) == ("t.pt", 2)
    assert attention.values["teacher"] == "t.pt" and attention.values["layers"] == ["P3", "P4", "P5"]


def test_a_recipe_goes_before_the_common_settings(tmp_path: Path) -> None:
    file = write(tmp_path, "half.yaml", "# Half.\nepochs: 15\nteacher-fraction: 0.5\nx: [a, '{teacher}']\n")
    (arm,) = read_arms([file], {**COMMON, "teacher_fraction": "1", "lr0": "0.1"})
    assert (arm.name, arm.about, arm.epochs) == ("half", "Half.", 15)
    assert arm.values["teacher_fraction"] == 0.5 and arm.values["lr0"] == "0.1" and arm.values["x"] == ["a", "t.pt"]
    assert arm.values["patience"] == 15


def test_how_a_teacher_teaches_is_no_matter_of_arms_without_one(tmp_path: Path) -> None:
    common = {**COMMON, "teacher_precision": "float32", "share": "0.4", "init": "none", "hold": "true", "lr0": "0.1"}
    plain, default = read_arms(["plain", "attention"], common)
    settings_from(split(plain.values)[0])
    given = set(common) - set(COMMON)
    assert given & set(plain.values) == {"lr0"} and given <= set(default.values)
    own = write(tmp_path, "own.yaml", "teacher: none\nshare: 0.3\n")  # what a recipe itself says is checked
    assert read_arms([own], common)[0].values["share"] == 0.3


def test_what_a_recipe_sets_otherwise_is_told_and_what_no_arm_takes_is_refused() -> None:
    common = {**COMMON, "init": "fit", "lr0": "0.1"}
    arms = read_arms(["plain", "default", "attention", "response"], common)
    assert unheard(arms, common) == ["init=fit is not for attention, response, which set it"]
    assert arms[1].values["init"] == "fit" and arms[2].values["init"] == "none"
    refusals = [
        (["attention"], {"layers": "P4"}, "layers=P4: no arm takes it: attention set"),
        (["plain"], {"share": "0.4"}, "share=0.4: no arm takes it: none of them has a teacher"),
    ]
    for names, more, complaint in refusals:
        given = {**COMMON, **more}
        with pytest.raises(InputError, match=complaint):
            unheard(read_arms(names, given), given)


def test_patience_and_plots_of_the_user_stay() -> None:
    found = resolve({"teacher": "none"}, {**COMMON, "patience": "7", "plots": "True"}, "arm")
    assert (found["patience"], found["plots"]) == ("7", "True")


def test_a_unet_takes_no_plots() -> None:
    assert "plots" not in resolve({"teacher": "none"}, {**COMMON, "student": "unet:8"}, "arm")


def test_files_are_known_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.pt").touch()
    found = resolve({"teacher": "none", "distill_model": "{teacher}"}, COMMON, "arm")
    assert found["distill_model"] == str(tmp_path / "t.pt") and found["student"] == "s.yaml"


@pytest.mark.parametrize(
    ("names", "common", "complaint"),
    [
        ([], COMMON, "--arms is missing"),
        (["plian"], COMMON, "no such recipe; nearest: 'plain'"),
        (["gone.yaml"], COMMON, "--arms gone.yaml: no such file"),
        (["plain", "plain"], COMMON, "'plain' is listed twice"),
        (["plain"], {**COMMON, "seed": "1"}, "'seed' is not for it to set"),
        (["plain"], {**COMMON, "exist-ok": "1"}, "'exist-ok' is not for it to set"),
        (["plain"], {k: v for k, v in COMMON.items() if k != "epochs"}, "the budget is missing"),
        (["plain"], {**COMMON, "epochs": "many"}, "epochs=many"),
        (["attention"], {k: v for k, v in COMMON.items() if k != "teacher"}, "--teacher is missing: arm 'attention'"),
        (["native"], {k: v for k, v in COMMON.items() if k != "teacher"}, "--teacher is missing: arm 'native'"),
    ],
)
def test_what_is_refused(names: list[str], common: dict[str, str], complaint: str) -> None:
    with pytest.raises(InputError) as refused:
        read_arms(names, common)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "seed: 3\n", "name: x\n"])
def test_a_recipe_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="mine"):
        read_arms([write(tmp_path, "mine.yaml", text)], COMMON)
    with pytest.raises(InputError, match="letters, digits"):
        read_arms([write(tmp_path, "it's.yaml", "teacher: none\n")], COMMON)
