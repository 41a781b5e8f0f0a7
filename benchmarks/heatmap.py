"""`distill heatmap`, whole: 16 images at 640 px, six pairs, YOLO11s and YOLO11n, sheets and report included.

The time is that of the command as a user runs it, from start to prompt, beside that of one forward pass of both
networks on the same images, before and after it: so many times what has to be computed in any case. Sizes are of the
files it writes. The page is opened in headless Chromium, if there is one, and timed until the overview is drawn. The
networks are untrained and the pictures generated scenes: neither changes the cost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import torch
from _measure import MB, Target, conclude, machine, options, table

from distill.loading import ultralytics_adapter
from distill.scenes import make_scene

IMAGES, SIZE = 16, 640
LAYERS = "P3,P4,P5,B3,B4,B5"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    parser = options(__doc__)
    parser.set_defaults(threads=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = networks(folder)
        images = pictures(folder / "images")
        before = forward(files, images, arguments.device)
        out, seconds = command(folder, arguments.threads, str(arguments.device))
        both = median((before, forward(files, images, arguments.device)))
        page = out / "report.html"
        sheet = max(file.stat().st_size for file in (out / "sheets").iterdir())
        opened = open_page(page)
        found = {
            "seconds": seconds,
            "forward_seconds": both,
            "page_bytes_per_image": page.stat().st_size / IMAGES,
            "largest_sheet_bytes": sheet,
            "page_opens_seconds": opened,
        }
    print(machine(arguments.device))
    rows = [
        ("distill heatmap, whole", f"{seconds:.1f} s"),
        ("one forward pass of both networks", f"{both:.1f} s"),
        ("ratio", f"{seconds / both:.1f}"),
        ("report, per image", f"{page_size(found):.2f} MB"),
        ("largest sheet", f"{sheet / MB:.2f} MB"),
        ("report opens", "no Chromium" if opened is None else f"{opened:.2f} s"),
    ]
    print(table((f"{IMAGES} images, {SIZE} px, {LAYERS}", ""), rows))
    targets = [Target("seconds on two cores", seconds, 60.0), Target("report, MB per image", page_size(found), 2.0)]
    if opened is not None:
        targets.append(Target("seconds until the report is open", opened, 2.0))
    return conclude(targets, not arguments.no_check, arguments.json, found)


def page_size(found: dict[str, float | None]) -> float:
    return (found["page_bytes_per_image"] or 0.0) / 1e6


def networks(folder: Path) -> list[Path]:
    ultralytics_adapter()
    from ultralytics.nn.tasks import DetectionModel

    files = []
    for name in ("yolo11s", "yolo11n"):
        torch.manual_seed(0)
        files.append(folder / f"{name}.pt")
        torch.save({"model": DetectionModel(f"{name}.yaml", nc=80, verbose=False)}, files[-1])
    return files


def pictures(folder: Path) -> torch.Tensor:
    """Written as PNG; and as one batch (16, 3, 640, 640) in [0, 1]."""
    folder.mkdir()
    scenes = [make_scene(i, "val", size=SIZE).image for i in range(IMAGES)]
    for i, image in enumerate(scenes):
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in scenes]).float() / 255


@torch.no_grad()
def forward(files: list[Path], images: torch.Tensor, device: torch.device) -> float:
    """Seconds for both networks, in batches of eight."""
    adapter = ultralytics_adapter()
    modules = [adapter.read_checkpoint(file, "network").module.to(device) for file in files]
    start = time.perf_counter()
    for module in modules:
        for batch in images.split(8):
            module(batch.to(device))
    return time.perf_counter() - start


def command(folder: Path, threads: int, device: str) -> tuple[Path, float]:
    words = ["heatmap", "--teacher", "yolo11s.pt", "--student", "yolo11n.pt", "--source", "images", "--layers", LAYERS]
    words += ["--imgsz", str(SIZE), "--device", device.removeprefix("cuda:"), "--out", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "true"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "distill", *words], cwd=folder, env=environment, check=True)
    return folder / "out", time.perf_counter() - start


def open_page(page: Path) -> float | None:
    """Seconds from the address to a drawn overview; the browser itself is started before. None without Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = running.new_page()
        start = time.perf_counter()
        tab.goto(page.absolute().as_uri())
        tab.wait_for_selector("svg")
        seconds = time.perf_counter() - start
        running.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
