"""`distill doctor`."""

from __future__ import annotations

import argparse
from typing import Any

from distill.commands.options import PASSED_ON, add_settings, given, terms_of


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="check that a teacher would really teach, and try it for a few steps",
        description="Run every check that precedes training: exit code 0 if distillation would work, 1 if not.",
        epilog=PASSED_ON,
    )
    add_settings(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print each check; 1 when one failed."""
    from distill.jobs.checks import doctor

    checks = doctor(arguments.config, terms_of(arguments), **given(arguments))
    print("\n".join(map(str, checks)))
    failed, warned = sum(not check.ok for check in checks), sum(check.warning for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    print(f"\n{f'with {warned} warning(s), ' if warned else ''}{verdict}")
    return 1 if failed else 0
