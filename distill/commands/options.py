"""The options that `distill train` and `distill doctor` share, made from the settings themselves."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from distill.config import converted, kind_of
from distill.errors import InputError
from distill.settings import Settings
from distill.text import nearest, one_line

TASKS = ("detect", "segment", "classify", "pose", "obb", "semantic")  # the first word of a `yolo` line
PASSED_ON = "key=value settings (epochs=25 imgsz=256 batch=16 ...) are Ultralytics' own and pass through."


class Once(argparse.Action):
    """Stores a value, and refuses a second one."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise InputError(f"{option} is given twice: once is enough")
        setattr(namespace, self.dest, value)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One option per setting, `--config`, and the trainer's own `key=value` behind them."""
    groups: dict[str, Any] = {}
    for setting in fields(Settings):
        title = setting.metadata["group"]
        group = groups[title] = groups.get(title) or parser.add_argument_group(title)
        flag = f"--{setting.name.replace('_', '-')}"
        text = setting.metadata["help"].replace("%", "%%")
        if setting.type == "bool":
            group.add_argument(flag, action="store_const", const=True, help=text)
        else:
            group.add_argument(flag, action=Once, metavar=setting.metadata["metavar"], help=text)
    help_config = "YAML of these settings; the command line overrides it"
    parser.add_argument("--config", action=Once, metavar="FILE", help=help_config)
    help_term = "a way of teaching of your own, package.module:Name; may be given more than once"
    parser.add_argument("--term", action="append", metavar="NAME", help=help_term)
    parser.set_defaults(terms=())
    parser.add_argument("arguments", nargs="*", metavar="key=value", help=PASSED_ON)


def named_terms(words: Sequence[str]) -> list[Any]:
    """The terms of a user's own that a command line names, imported: their options belong to it."""
    if not words or words[0] not in ("train", "doctor"):
        return []
    places = [after for word, after in pairwise(words) if word == "--term"]
    places += [word.removeprefix("--term=") for word in words if word.startswith("--term=")]
    if not places:
        return []
    from distill.terms.registry import find_term

    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` has it
        sys.path.insert(0, here)
    return [find_term(place) for place in dict.fromkeys(places)]


def add_terms(parser: Any, terms: Sequence[Any]) -> None:
    """The options of a user's own terms: one for each field, `--name-field`."""
    for term in terms:
        group = parser.add_argument_group(f"{term.name} (your own)", one_line(term.__doc__))
        for field in fields(term):
            flag = f"--{term.name}-{field.name}".replace("_", "-")
            text = "" if field.default is MISSING else f"default: {field.default!r}".replace("%", "%%")
            try:
                group.add_argument(flag, action=Once, metavar=field.name.upper(), help=text)
            except argparse.ArgumentError as error:
                raise InputError(f"the term's name '{term.name}' is taken, by {flag}: give it another") from error
    parser.set_defaults(terms=tuple(terms))


def terms_of(arguments: argparse.Namespace) -> list[Any]:
    """A user's own terms, with the settings that were given."""
    made = []
    for term in arguments.terms:
        values = {}
        for field in fields(term):
            name = f"{term.name}_{field.name}"
            if (text := getattr(arguments, name)) is not None:
                values[field.name] = converted(name, text, kind_of(field.type, name))
        made.append(term(**values))
    return made


def given_to_terms(arguments: argparse.Namespace) -> list[str]:
    """The options of a user's own terms that were given."""
    names = [f"{term.name}_{field.name}" for term in arguments.terms for field in fields(term)]
    return [name for name in names if getattr(arguments, name) is not None]


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user wrote, as one flat mapping, of the options that the command has.

    Raises InputError for a word without `=` or a thing given twice.
    """
    options = {f.name: f"--{f.name.replace('_', '-')}" for f in fields(Settings)}
    values = {name: value for name in options if (value := getattr(arguments, name, None)) is not None}
    for word in arguments.arguments:
        key, equals, value = word.partition("=")
        if not equals:
            known = [option for name, option in options.items() if hasattr(arguments, name)]
            several = "" if word.startswith("-") else "; several values are separated by commas"
            if word in TASKS:
                several = "; the task follows from the student"
            raise InputError(f"'{word}' is neither an option nor key=value{nearest(word, known)}{several}")
        if key in values:
            raise InputError(f"'{key}' is given twice, the second time as {word}: once is enough")
        values[key] = value
    return values


def whole(text: str) -> int:
    """A whole number. argparse turns the error into a line that names the option."""
    return int(text)


def decimal(text: str) -> float:
    """A finite number."""
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


whole.__name__, decimal.__name__ = "whole number", "number"  # argparse: invalid whole number value: 'x'
