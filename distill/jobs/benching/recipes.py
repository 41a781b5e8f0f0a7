"""The arms of a bench: recipes in YAML, found by name or path, and what each becomes for one student and teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import read_mapping, recipes, split, with_teacher
from distill.errors import InputError
from distill.loading import is_unet
from distill.settings import TEACHING
from distill.text import nearest, plain

NONE = "none"
NAME = re.compile(r"[\w.+-]+")  # of an arm: it becomes that of a folder
NETWORKS = ("student", "data", "teacher")
FILES = (*NETWORKS, "pretrained", "distill_model")  # values that name files
OF_THE_BENCH = ("seed", "name", "project", "device", "resume", "exist_ok", "save_dir", "config")


@dataclass(frozen=True)
class Arm:
    """One way to train: `recipe` is what its file says, `about` the sentence at its top.

    `values` are all settings of its runs but seed, folder and device: what `distill train --config` takes.
    """

    name: str
    file: str
    about: str
    recipe: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        return int(self.values["epochs"])

    @property
    def validates(self) -> bool:
        """Every epoch? Otherwise, with val=False, only the last one."""
        return str(self.values.get("val", True)).lower() not in ("false", "0")


def read_arms(names: Sequence[str], common: Mapping[str, Any]) -> tuple[Arm, ...]:
    """The arms by name or path, with the `common` settings of the bench.

    Raises InputError for an arm that is not found, one that is listed twice, and settings that cannot be.
    """
    if not names:
        raise InputError("--arms is missing: recipes to compare, such as --arms plain,default,fit")
    _refuse_own(common, "a bench")
    arms: dict[str, Arm] = {}
    for name in names:
        file = find_recipe(name)
        if not NAME.fullmatch(file.stem):
            raise InputError(f"--arms {plain(name)}: name the file with letters, digits, '-', '_' and '.' alone")
        if file.stem in arms:
            raise InputError(f"--arms: '{file.stem}' is listed twice")
        arms[file.stem] = _arm(file, common)
    return tuple(arms.values())


def unheard(arms: Sequence[Arm], common: Mapping[str, Any]) -> list[str]:
    """A line for each common setting that the recipes of some arms set otherwise; networks and data apart.

    Raises InputError for one that no arm takes: it would have no effect.
    """
    lines = []
    for key, value in {k: v for part in split(common) for k, v in part.items() if k not in NETWORKS}.items():
        given = f"{key}={plain(str(value))}"
        own = [arm.name for arm in arms if str(_own(arm).get(key, value)) != str(value)]
        if not any(key in arm.values and arm.name not in own for arm in arms):
            why = f"{', '.join(own)} set it themselves" if own else "none of them has a teacher"
            raise InputError(f"{given}: no arm takes it: {why}")
        if own:
            lines.append(f"{given} is not for {', '.join(own)}, which {'set' if own[1:] else 'sets'} it")
    return lines


def _own(arm: Arm) -> dict[str, Any]:
    return {key: value for part in split(arm.recipe) for key, value in part.items()}


def silent(arms: Sequence[Arm], keys: Sequence[str]) -> list[str]:
    """The names of the arms whose recipes say nothing of these settings."""
    return [arm.name for arm in arms if not {key.replace("-", "_") for key in arm.recipe} & set(keys)]


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path that ends in .yaml, or a name of those that come with the package."""
    if name.endswith((".yaml", ".yml")):
        if not (path := Path(name).expanduser()).is_file():
            raise InputError(f"--arms {plain(name)}: no such file")
        return path.absolute()
    known = recipes()
    if name not in known:
        there = f"there are {', '.join(sorted(known))}, or give the path of a .yaml"
        raise InputError(f"--arms {plain(name)}: no such recipe{nearest(name, known)}; {there}")
    return known[name]


def _arm(file: Path, common: Mapping[str, Any]) -> Arm:
    what = f"arm '{file.stem}'"
    recipe = read_mapping(file, f"{what} ({file})")
    _refuse_own(recipe, what)
    first = file.read_text(encoding="utf-8").split("\n", 1)[0]
    about = first.lstrip("# ").strip() if first.startswith("#") else ""
    return Arm(file.stem, str(file), about, recipe, resolve(recipe, common, what))


def resolve(recipe: Mapping[str, Any], common: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The settings of an arm's runs: the recipe's own before the common ones, the teacher's path put in.

    An arm without a teacher is not given the common settings that say how one teaches.
    `patience` is the number of epochs unless it is given, so that every arm has its whole budget; no plots are drawn.
    """
    sides = [{key: value for part in split(side) for key, value in part.items()} for side in (common, recipe)]
    values: dict[str, Any] = {**sides[0], **sides[1]}
    teacher = sides[0].get("teacher")
    values = {key: with_teacher(value, teacher, what) for key, value in values.items()}
    if str(values.get("teacher") or NONE).lower() == NONE:
        values.pop("teacher", None)
        if teacher is None and "teacher" not in sides[1]:
            raise InputError(f"--teacher is missing: {what} learns from one")
        values = {key: value for key, value in values.items() if key in sides[1] or key not in TEACHING}
    if "epochs" not in values:
        raise InputError(f"{what}: the budget is missing, such as epochs=30")
    if not re.fullmatch(r"[1-9]\d*", str(values["epochs"])):
        raise InputError(f"{what}: epochs={plain(str(values['epochs']))}: a whole number from 1 is needed")
    values.setdefault("patience", values["epochs"])
    if not is_unet(str(values.get("student") or "")):
        values.setdefault("plots", False)
    return {key: absolute(key, value) for key, value in values.items()}


def absolute(key: str, value: Any) -> Any:
    """The value of a setting, files by their whole path: a bench may be resumed from another folder."""
    return str(Path(value).absolute()) if key in FILES and isinstance(value, str) and Path(value).exists() else value


def _refuse_own(values: Mapping[str, Any], what: str) -> None:
    for key in values:
        if key.replace("-", "_") in OF_THE_BENCH:
            raise InputError(f"{what}: '{key}' is not for it to set: every run has one of its own")
