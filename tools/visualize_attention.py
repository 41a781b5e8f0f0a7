"""Where do a teacher and a student look? The work of `distill heatmap`, as a script to start from.

    python tools/visualize_attention.py --teacher big.pt --student best.pt --images images/ --out looked

Prints the table of figures and writes sheets, report, tables and maps into a new folder.
"""

from __future__ import annotations

import argparse
import sys

import distill


def main() -> None:
    """Compare two networks on images, and save what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", required=True, metavar="FILE")
    parser.add_argument("--student", required=True, metavar="FILE")
    parser.add_argument("--images", required=True, metavar="WHAT", help="an image, a folder, a pattern or a video")
    parser.add_argument("--layers", default="", metavar="LIST", help="default: every head level that both have")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    arguments = parser.parse_args()

    layers = [layer for layer in arguments.layers.split(",") if layer]
    comparison = distill.compare(arguments.teacher, arguments.student, arguments.images, layers=layers)
    print(comparison)
    print(f"\nsaved in {comparison.save(arguments.out)}")


if __name__ == "__main__":
    try:
        main()
    except distill.DistillError as error:
        sys.exit(f"error: {error}")
