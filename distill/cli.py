"""The command line: one parser, one command called, one exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from distill import __version__
from distill.commands import checking, demo, info, training
from distill.errors import DistillError

COMMANDS = (training, checking, info, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        return code
    except DistillError as error:
        print(f"distill: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("distill: stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="distill", description="Teach a small detector where a large one looks, and see what was learned."
    )
    top.add_argument("--version", action="version", version=f"distill {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return top
