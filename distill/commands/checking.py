"""`distill doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from distill.commands.options import PASSED_ON, add_settings, given


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="check that a teacher would really teach, without training",
        description="Run every check that precedes training: exit code 0 if distillation would work, 1 if not.",
        epilog=PASSED_ON,
    )
    add_settings(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print each check; 1 when one failed."""
    from distill.jobs.checks import doctor

    checks = doctor(arguments.config, **given(arguments))
    print("\n".join(map(str, checks)))
    failed = [check for check in checks if not check.ok]
    print(f"\n{len(failed)} of {len(checks)} checks failed" if failed else f"\nall {len(checks)} checks passed")
    return 1 if failed else 0
