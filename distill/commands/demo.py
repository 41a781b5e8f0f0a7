"""`distill demo`."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="the main job on generated scenes, in minutes on a CPU",
        description="Train a teacher, a plain and a distilled student on generated scenes, and compare them.",
    )
    parser.add_argument("--project", metavar="DIR", default="runs/demo", help="where the runs go; default: %(default)s")
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration; 1 when a network stays under its floor, for then it would show nothing."""
    from distill.jobs.demo import demo

    print(demo(arguments.project, arguments.device))
    return 0
