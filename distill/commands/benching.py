"""`distill bench`."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from distill.commands.options import Once, given, whole
from distill.config import recipes
from distill.errors import InputError

COMMON = (
    "key=value settings (epochs=30 imgsz=256 cpu_bfloat16=true ...), ours too, go to every arm; where a recipe sets "
    "the same, the recipe's count."
)
EPILOG = f"""recipes: {textwrap.fill(", ".join(recipes()), 100, subsequent_indent=" " * 9, break_on_hyphens=False)}

  distill bench --teacher t.pt --student yolo11n.yaml --data data.yaml --arms plain,default,fit --seeds 8 epochs=30
  distill bench --resume runs/bench/bench                 go on after an interruption
  distill bench --resume runs/bench/bench --arms init     the same, with one arm more for the same seeds
  distill bench --report runs/bench/bench                 write the report anew, at any time
"""


def add_to(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="compare ways to train the same student, over paired seeds",
        description="Train the same student in several ways over the same seeds, and say what the differences show.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--teacher", action=Once, metavar="FILE", help="trained network that the arms with a teacher learn from")
    add("--student", action=Once, metavar="FILE", help="network that every arm trains")
    add("--data", action=Once, metavar="FILE", help="data.yaml, a folder, dataset.json, 'scenes' or 'volumes'")
    add("--arms", action=Once, metavar="LIST", help="recipes, listed below, or paths of YAML files")
    seeds = "8 means 0 to 7; 100,101 or 100-107 just these, 100-100 that one alone; default: 8"
    add("--seeds", action=Once, metavar="N", help=seeds)
    add("--jobs", action=Once, type=whole, metavar="N", help="runs at the same time on each device; default: 1")
    add("--device", action=Once, metavar="LIST", help="cpu, 0, mps; 0,1: runs are spread over these")
    add("--name", action=Once, metavar="NAME", help="name of the bench's folder; default: bench, numbered")
    add("--project", action=Once, metavar="DIR", help="folder of benches; default: ./runs/bench")
    add("--trust", action="store_const", const=True, help="run code that a checkpoint or yaml carries")
    add("--resume", action=Once, metavar="DIR", help="go on with the bench in this folder")
    add("--report", action=Once, metavar="DIR", help="write the tables and the page of the bench in this folder anew")
    add("arguments", nargs="*", metavar="key=value", help=COMMON)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run, go on or report; 1 when a run failed."""
    values = given(arguments)
    own = {key: getattr(arguments, key) for key in ("arms", "seeds", "jobs") if getattr(arguments, key) is not None}
    old = {key: getattr(arguments, key) for key in ("resume", "report") if getattr(arguments, key) is not None}
    further = own.pop("arms", None) if "resume" in old else None
    if old and (extra := sorted([*values, *own, *list(old)[1:]])):
        raise InputError(f"--{next(iter(old))} keeps the bench's own settings: leave out {', '.join(extra)}")
    if not old:
        for key in ("student", "data", "arms"):
            if key not in {**values, **own}:
                raise InputError(f"--{key} is missing")

    from distill.jobs.benching.benches import bench, report_bench, resume_bench

    if "report" in old:
        print(report_bench(old["report"]))
        return 0
    result = resume_bench(old["resume"], further) if "resume" in old else bench(**values, **own)
    print(f"\n{result}")
    return 1 if result.failed else 0
