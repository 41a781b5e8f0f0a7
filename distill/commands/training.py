"""`distill train`."""

from __future__ import annotations

import argparse
from typing import Any

from distill.commands.options import PASSED_ON, add_settings, given, given_to_terms, terms_of
from distill.errors import InputError

EPILOG = f"""{PASSED_ON}

  distill train --student yolo11s.yaml --data data.yaml epochs=100                       plain: a teacher or a baseline
  distill train --teacher best.pt --student yolo11n.yaml --data data.yaml epochs=100     distil
  distill train --resume runs/distill/train2                                             go on after an interruption
"""


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a student, with or without a teacher",
        description="Train a student network, guided by a teacher's attention maps where one is given.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(parser)
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder, with the settings it had")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, then print what it brought."""
    values = given(arguments)
    if arguments.resume is not None:
        more = {*given_to_terms(arguments), *(("config",) if arguments.config else ())}
        settled = sorted(set(values) - {"device", "trust"} | more)
        if settled:
            raise InputError(f"--resume keeps the run's own settings: leave out {', '.join(settled)}")

    from distill.jobs.training import resolved, resume, train

    if arguments.resume is not None:
        result = resume(arguments.resume, values.get("device"), bool(values.get("trust")), terms_of(arguments))
    else:
        settings, _ = resolved(arguments.config, values)
        if settings.teacher and settings.weight == 0:
            raise InputError("--weight 0 would distil nothing of attention: take --layers none, or no --teacher")
        result = train(arguments.config, terms_of(arguments), **values)
    print(f"\n{result}")
    return 0
