"""`distill timeline`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from distill.records import HEATMAPS


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "timeline",
        help="draw what a training run kept with --heatmaps (a run that ends does so itself)",
        description="Draw the maps that a run kept with --heatmaps: a page with a slider over the epochs, an "
        "animation, curves; of a U-Net's gates on volumes also 4-D NIfTI with the epoch on the fourth axis, and of "
        "every U-Net losses, Dice and IoU. A run that ends does so itself; this is for one that was cut short, or is "
        "still under way.",
    )
    parser.add_argument("folder", metavar="DIR", help="the run's folder, such as runs/distill/train")
    parser.add_argument("--trust", action="store_true", help="run code that the data's yaml carries")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw, and say where things are."""
    from distill.jobs.seeing.timeline import draw_timeline

    print("\n".join(map(str, draw_timeline(arguments.folder, arguments.trust))))
    if not (Path(arguments.folder) / HEATMAPS).is_dir():
        print("distill: no maps were kept: train with --heatmaps 10, or 1,3,10", file=sys.stderr)
    return 0
