"""`distill heatmap`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from distill.commands.options import Once, decimal, whole

EPILOG = """
  distill heatmap --teacher big.pt --student best.pt --source images/ --data data.yaml --layers P3,P4,P5,B5
  distill heatmap --teacher big.pt --student best.pt --baseline plain.pt --source images/    before and after distilling
  distill heatmap --student best.pt --source clip.mp4 --every 30                             one network alone
  distill heatmap --student gated.ckpt --baseline unet.ckpt --data dataset.json              U-Nets, level by level
"""
DEFAULT_FOLDER = Path("runs/distill")


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "heatmap",
        help="see where teacher and student look, layer by layer, on one scale, with numbers",
        description="Draw the attention maps of paired layers side by side, measure them, and write a page to browse.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--teacher", action=Once, metavar="FILE", help="trained network that the student is compared with (.pt, .ckpt)")
    add(
        "--student", action=Once, metavar="FILE", help="trained network to look at: a detector (.pt) or a U-Net (.ckpt)"
    )
    add("--baseline", action=Once, metavar="FILE", help="second student, such as one trained without a teacher")
    add("--source", action=Once, metavar="WHAT", help="image, folder, 'glob*', video, .txt; default: --data's --split")
    add(
        "--data",
        action=Once,
        metavar="FILE",
        help="data.yaml (of a U-Net also dataset.json) that says where labels are",
    )
    add("--split", default="val", metavar="NAME", help="of --data, where --source is left out; default: %(default)s")
    add(
        "--layers",
        action=Once,
        metavar="LIST",
        help="what to pair: roles (P3,P4,P5,B3..), numbers (16), dotted names, globs, student:teacher; "
        "default: every head level that both have; of U-Nets every gate with its skip, and the decoder",
    )
    add("--imgsz", type=whole, metavar="PIXELS", help="longer side of the input; default: what the student learned on")
    add("--teacher-imgsz", type=whole, metavar="PIXELS", help="the same for the teacher; default: the student's")
    add("--max-images", type=whole, metavar="N", help="evenly spread over the source; default: 16, of volumes 4")
    add("--every", type=whole, metavar="N", help="of a video, every N-th frame; default: evenly spread")
    add("--conf", type=decimal, default=0.25, metavar="C", help="least score of predictions; default: %(default)s")
    add("--p", type=decimal, default=2.0, metavar="P", help="power of the energy maps, sum |F|^p; default: %(default)s")
    add(
        "--scale",
        choices=("shared", "raw", "each"),
        default="shared",
        help="the sheets' colours: shared after normalisation (what the loss sees; default), raw energies, or each map "
        "on its own (not comparable)",
    )
    add("--opacity", type=decimal, default=0.6, metavar="O", help="of the maps, 0 to 1; default: %(default)s")
    add("--device", action=Once, metavar="DEVICE", help="cpu, 0, mps; default: the first GPU, else the CPU")
    add("--seed", type=whole, default=0, metavar="N", help="of the untrained student shown as a control")
    add("--out", action=Once, metavar="DIR", help="new folder for the results; default: runs/distill/heatmap, numbered")
    add("--trust", action="store_true", help="run code that a checkpoint or yaml carries: only for files you made")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, write, and say where things are."""
    from distill.errors import InputError
    from distill.jobs.seeing.comparing import compare
    from distill.jobs.seeing.comparison import PICTURES, REPORT
    from distill.records import new_folder, next_folder

    if not 0 <= arguments.opacity <= 1:
        raise InputError(f"--opacity {arguments.opacity}: a number from 0 to 1")
    new_folder(arguments.out or DEFAULT_FOLDER / "heatmap0")  # refused now rather than after the work
    ours = ("source", "layers", "scale", "opacity", "out", "run")
    settings = {key: value for key, value in vars(arguments).items() if key not in ours}
    comparison = compare(images=arguments.source, layers=arguments.layers or (), **settings)
    folder = arguments.out or next_folder(DEFAULT_FOLDER, "heatmap")
    folder = comparison.save(folder, arguments.scale, arguments.opacity)
    print(comparison)
    print(f"\nreport   {folder / REPORT}\nsheets   {folder / PICTURES}\nnumbers  {folder / 'metrics.csv'}")
    print(f"all      {folder}")
    return 0
