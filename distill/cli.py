"""The command line: one parser, one command called, one exit code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from distill import __version__
from distill.commands import benching, checking, demo, epochs, info, layers, masks, seeing, training
from distill.commands.options import add_terms, named_terms
from distill.errors import DistillError, InputError
from distill.settings import Settings
from distill.text import nearest

COMMANDS = (training, checking, benching, seeing, layers, epochs, masks, info, demo)


class Parser(argparse.ArgumentParser):
    """Options and key=value in any order; a mistake is an error like any other, in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse takes positional words from one place only; those behind further options are left over."""
        parsed, left = super().parse_known_args(args, namespace)
        for word in left:
            if word.startswith("-") or not hasattr(parsed, "arguments"):
                known = re.findall(r"--[\w-]+", self.format_usage())
                self.error(f"'{word}' is no option here{nearest(word, known)}; {self._remedy(word)}")
            parsed.arguments.append(word)
        return parsed, []

    def _remedy(self, word: str) -> str:
        if self.get_default("arguments") is not None or any(a.dest == "arguments" for a in self._actions):
            if (name := word.lstrip("-").replace("-", "_").partition("=")[0]) in {f.name for f in fields(Settings)}:
                return f"here it is written {name}=..., as every arm's settings are"
            return "Ultralytics' own are written key=value"
        return "separate several values with commas, and put patterns in quotes"

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    try:
        top = parser(sys.argv[1:] if argv is None else argv)
        arguments = top.parse_args(argv)
        if not hasattr(arguments, "run"):
            top.print_help(sys.stderr)
            return InputError.exit_code
        code: int = arguments.run(arguments)
        return code
    except DistillError as error:
        print(f"distill: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("distill: stopped", file=sys.stderr)
        return 130


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line, with the options of the terms that its `words` name."""
    top = Parser(
        prog="distill", description="Teach a small detector where a large one looks, and see what was learned."
    )
    top.add_argument("--version", action="version", version=f"distill {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    for name in ("train", "doctor"):
        add_terms(commands.choices[name], named_terms(words))
    return top
