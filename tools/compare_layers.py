"""Which layers of two networks match, how alike they are, and what to pair: `distill layers` from Python.

    python tools/compare_layers.py --teacher big.pt --student yolo11n.yaml --data data.yaml --out layers

Prints the tables and the suggested pairs, and writes them with the matrices into the folder.
"""

from __future__ import annotations

import argparse
import sys

import distill


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("teacher", "student", "data", "out"):
        parser.add_argument(f"--{name}", required=True, metavar="DIR" if name == "out" else "FILE")
    parser.add_argument("--split", default="val", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--imgsz", type=int, metavar="PIXELS", help="default: what the student learned on")
    arguments = vars(parser.parse_args())
    out = arguments.pop("out")
    analysis = distill.analyse(**arguments)
    print(analysis)
    print(f"\nfiles  {analysis.save(out)}")


if __name__ == "__main__":
    try:
        main()
    except distill.DistillError as error:
        sys.exit(f"error: {error}")
