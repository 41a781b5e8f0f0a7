"""`distill layers`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from distill.commands.options import Once, whole

EPILOG = """
  distill layers --student yolo11n.yaml                                       one network: its layers, what they cost
  distill layers --teacher big.pt --student yolo11n.yaml --data data.yaml     which layers match, what to pair
  distill train --config runs/layers/layers/suggestion.yaml --teacher ...     pair what was suggested
"""
DEFAULT_FOLDER = Path("runs/layers")


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "layers",
        help="list layers and their cost; of two networks, how alike they are and what to pair",
        description="Table of a network's layers; for a teacher and a student also, on real images, how alike their "
        "features (CKA) and their attention (cosine) are, layer by layer, and which pairs are worth training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--teacher", action=Once, metavar="FILE", help="trained network to learn from (.pt)")
    add("--student", action=Once, metavar="FILE", help="network that learns: a .pt, or a .yaml (untrained)")
    add("--source", action=Once, metavar="WHAT", help="image, folder, 'glob*', video, .txt; default: --data's --split")
    add("--data", action=Once, metavar="FILE", help="data.yaml, a classification folder, or 'scenes'")
    add("--split", default="val", metavar="NAME", help="of --data; default: %(default)s")
    add(
        "--layers",
        action=Once,
        metavar="LIST",
        help="compare only these: roles (P3,B4), numbers (16), dotted names, globs, student:teacher; "
        "default: all top-level layers",
    )
    add("--depth", choices=("top", "all"), default="top", help="what is listed: top-level layers (default), or all")
    add("--imgsz", type=whole, metavar="PIXELS", help="side of the square input; default: what the student learned on")
    add("--max-images", type=whole, default=32, metavar="N", help="evenly spread over the split; default: %(default)s")
    add("--every", type=whole, metavar="N", help="of a video, every N-th frame; default: evenly spread")
    add("--batch", type=whole, default=16, metavar="N", help="images in a minibatch; default: %(default)s")
    add("--device", default="cpu", metavar="DEVICE", help="cpu, 0, mps: also what is timed; default: %(default)s")
    add("--seed", type=whole, default=0, metavar="N", help="of an untrained student's weights and the images' order")
    add("--out", action=Once, metavar="DIR", help="new folder for the results; default: runs/layers/layers, numbered")
    add("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    add("--trust", action="store_true", help="run code that a checkpoint or yaml carries: only for files you made")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, write, and say where things are."""
    from distill.jobs.layers.analysis import analyse
    from distill.jobs.layers.files import as_json
    from distill.records import new_folder, next_folder

    new_folder(arguments.out or DEFAULT_FOLDER / "layers0")  # refused now rather than after the work
    ours = ("source", "layers", "out", "json", "run")
    settings = {key: value for key, value in vars(arguments).items() if key not in ours}
    layers = [layer.strip() for layer in (arguments.layers or "").split(",") if layer.strip()]
    with redirect_stdout(sys.stderr):  # for a framework that greets there, which would spoil the JSON
        analysis = analyse(images=arguments.source, layers=layers, **settings)
    folder = analysis.save(arguments.out or next_folder(DEFAULT_FOLDER, "layers"))
    if arguments.json:
        print(as_json(analysis), end="")
        return 0
    print(analysis)
    for file, why in analysis.skipped:
        print(f"left out: {file} ({why})")
    print(f"\nfiles  {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    return 0
