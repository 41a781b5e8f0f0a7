"""`distill info`."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("info", help="versions and hardware, for bug reports")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what a bug report needs."""
    from distill.jobs.environment import environment

    facts = environment()
    width = max(map(len, facts))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()))
    return 0
