"""The options that `distill train` and `distill doctor` share, made from the settings themselves."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from distill.config import Settings
from distill.errors import InputError
from distill.text import nearest

PASSED_ON = "key=value settings (epochs=25 imgsz=256 batch=16 ...) are Ultralytics' own and pass through."


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One option per setting, `--config`, and the trainer's own `key=value` behind them."""
    for setting in fields(Settings):
        flag = f"--{setting.name.replace('_', '-')}"
        text = setting.metadata["help"].replace("%", "%%")
        if setting.type == "bool":
            parser.add_argument(flag, action="store_const", const=True, help=text)
        else:
            parser.add_argument(flag, metavar=setting.metadata["metavar"], help=text)
    parser.add_argument("--config", metavar="FILE", help="YAML of these settings; the command line overrides it")
    parser.add_argument("arguments", nargs="*", metavar="key=value", help=PASSED_ON)


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the user wrote, as one flat mapping. Raises InputError for a word without `=` or a thing given twice."""
    values = {f.name: getattr(arguments, f.name) for f in fields(Settings) if getattr(arguments, f.name) is not None}
    for word in arguments.arguments:
        key, equals, value = word.partition("=")
        if not equals:
            options = [f"--{f.name.replace('_', '-')}" for f in fields(Settings)]
            raise InputError(f"'{word}' is neither an option nor key=value{nearest(word, options)}")
        if key in values:
            raise InputError(f"'{key}' is given twice: as --{key.replace('_', '-')} and as {word}: once is enough")
        values[key] = value
    return values
