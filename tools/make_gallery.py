"""Fill attention_visualizations/ from generated scenes: train, look, and keep the pictures. `make gallery` runs it.

    python tools/make_gallery.py --out attention_visualizations

Trains a teacher, a plain and a distilled student (as `distill demo` does, some minutes on two cores), looks at them
with the commands that it prints, and writes the folder whole, with a README that names them.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from distill.records import whole_folder

RUNS = "runs/gallery"
TEACHER, STUDENT, BASELINE = (f"{RUNS}/{name}/weights/best.pt" for name in ("teacher", "distilled", "plain"))
LOOK = f"distill heatmap --teacher {TEACHER} --student {STUDENT} --baseline {BASELINE} --data scenes --device cpu"
LEVELS = "--layers P3,P4,P5,B3,B4,B5"
COMMANDS = {  # what is run, by the folder that it makes (the first one makes `RUNS` itself)
    "": f"distill demo --project {RUNS}",
    "shared": f"{LOOK} {LEVELS} --max-images 3 --out {RUNS}/shared",
    "raw": f"{LOOK} --max-images 1 --scale raw --out {RUNS}/raw",
    "each": f"{LOOK} --max-images 1 --scale each --out {RUNS}/each",
    "alone": f"distill heatmap --student {STUDENT} --data scenes --device cpu --max-images 1 --out {RUNS}/alone",
    "layers": f"distill layers --teacher {TEACHER} --student {BASELINE} --data scenes --device cpu --out {RUNS}/layers",
}
MOST = 5_000_000  # bytes in all

README = """# What the pictures of `distill` look like

Everything here was made by `make gallery`, from generated scenes: a YOLO11n teacher, and two small students with the
same seed and budget, one plain and one distilled. Five epochs teach them little; the pictures show what the tool shows,
not how good distillation is ([results](../docs/results.md) has that).

The networks, with the timeline of the distilled one:

```bash
{demo}
```

## The distilled student beside the plain one

Three validation images: boxes at the top, then a row per pair of layers: teacher, distilled student, plain student,
each one's difference from the teacher, and the figures of this image beside three controls (the teacher's maps of other
images, a flat map, and a student that was never trained). One colour range per row. The same as a page to browse:
[shared/report.html](shared/report.html).

```bash
{shared}
```

{sheets}

## Two other scales

Raw energies, on one range for all networks (left or above), and each map on its own, which shows most and compares
nothing:

```bash
{raw}
{each}
```

{scales}

## One network alone

```bash
{alone}
```

{alone_sheet}

## How the student's attention moved towards the teacher's

Kept by `--heatmaps 1` during the distilled run of the demonstration; epoch 0 is before training. The same with a
slider: [timeline/report.html](timeline/report.html).

![eight images, every epoch](timeline/timeline.gif)

![distance to the teacher and energy in the labelled boxes, by epoch](timeline/curves.png)

## Which layers are alike

```bash
{layers}
```

![CKA and attention cosine, teacher's layers by the student's](layers/matrices.webp)
"""


def main() -> None:
    """Run the commands, copy what they made, write the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = "a new folder, or a gallery, which is replaced; default: %(default)s"
    parser.add_argument("--out", type=Path, default=Path("attention_visualizations"), metavar="DIR", help=where)
    arguments = parser.parse_args()
    if arguments.out.exists() and not _made_here(arguments.out):
        parser.error(f"--out {arguments.out}: it exists and is no gallery: name another folder")
    shutil.rmtree(RUNS, ignore_errors=True)
    for command in COMMANDS.values():
        print(f"==> {command}", flush=True)
        subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True)
    shutil.rmtree(arguments.out, ignore_errors=True)  # made by this script, and made again
    with whole_folder(arguments.out) as folder:
        fill(Path(RUNS), folder)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB")
    if size > MOST:
        sys.exit(f"error: the gallery has {size / 1e6:.1f} MB, more than {MOST / 1e6:.0f}")


def _made_here(folder: Path) -> bool:
    """Is this an earlier gallery, by the first line of its README?"""
    readme = folder / "README.md"
    return readme.is_file() and readme.read_text(encoding="utf-8").startswith(README.split("\n", 1)[0])


def fill(runs: Path, folder: Path) -> None:
    """Copy the pictures and pages, and write the README around them."""
    for name in ("shared", "raw", "each", "alone"):
        (folder / name).mkdir()
        for sheet in (runs / name / "sheets").iterdir():
            shrink(sheet, folder / name)
    for page, into in ((runs / "shared", "shared"), (runs / "distilled" / "heatmaps", "timeline")):
        (folder / into).mkdir(exist_ok=True)
        shutil.copy(page / "report.html", folder / into)
    for file in ("timeline.gif", "curves.png"):
        shutil.copy(runs / "distilled" / "heatmaps" / file, folder / "timeline")
    (folder / "layers").mkdir()
    shrink(runs / "layers" / "matrices.png", folder / "layers")

    def shown(*names: str) -> str:
        files = [file for name in names for file in sorted((folder / name).glob("*.webp"))]
        return "\n\n".join(f"![{file.parent.name}, {file.stem}]({file.relative_to(folder)})" for file in files)

    text = README.format(
        demo=COMMANDS[""],
        **{name: command for name, command in COMMANDS.items() if name},
        sheets=shown("shared"),
        scales=shown("raw", "each"),
        alone_sheet=shown("alone"),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def shrink(picture: Path, folder: Path) -> None:
    """As WebP a sheet takes a third of the room, and its colours stay what the colour bars say."""
    with Image.open(picture) as image:
        image.convert("RGB").save(folder / f"{picture.stem}.webp", quality=90, method=6)


if __name__ == "__main__":
    main()
