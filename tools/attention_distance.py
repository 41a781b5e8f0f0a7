"""How far trained students' attention lies from a teacher's, on the same images: did anything come across?

    python tools/attention_distance.py --teacher big.pt --images val/images --imgsz 256 plain.pt distilled.pt

Prints each pair's mean cosine and L2 distance, a row per student. Images are resized to a square, not letterboxed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

import distill
from distill.loading import ultralytics_adapter


def main() -> None:
    """Read the networks and the images, print a row per student."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("students", nargs="+", metavar="STUDENT.pt")
    parser.add_argument("--teacher", required=True, metavar="FILE")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--imgsz", type=int, default=640, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--layers", default="", metavar="LIST", help="default: every head level that both have")
    parser.add_argument("--most", type=int, default=64, metavar="N", help="images, at even steps; default: %(default)s")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    adapter = ultralytics_adapter()
    files = sorted(f for f in arguments.images.iterdir() if f.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"))
    files = files[:: max(1, len(files) // arguments.most)][: arguments.most]
    images = torch.stack([read(file, arguments.imgsz) for file in files])  # (N, 3, imgsz, imgsz)
    patterns = [layer for layer in arguments.layers.split(",") if layer]
    teacher = adapter.read_checkpoint(arguments.teacher, "--teacher").module
    print(f"{'student':40} " + f"mean over {len(images)} images of {arguments.imgsz} px")
    for file in arguments.students:
        student = adapter.read_checkpoint(file, "student").module
        layers = [adapter.layers_of(network, arguments.imgsz) for network in (student, teacher)]
        pairs = distill.pair_layers(*layers, patterns)
        frozen = adapter.build_teacher(teacher, [pair.teacher for pair in pairs])
        figures = measure(
            distill.Distiller(frozen, [distill.AttentionTerm(pairs)], {"attention": 1.0}), student, images
        )
        print(f"{file[-40:]:40} " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def read(file: Path, imgsz: int) -> torch.Tensor:
    """(3, imgsz, imgsz), RGB in [0, 1]."""
    pixels = cv2.cvtColor(cv2.resize(cv2.imread(str(file)), (imgsz, imgsz)), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@torch.no_grad()
def measure(distiller: distill.Distiller, student: torch.nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Each pair's cosine and distance, means over the images."""
    totals: dict[str, float] = {}
    for part in images.split(16):
        with distiller.watch(student, distill.Batch(part)) as step:
            student(part)
        for name, value in step.figures().items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(part) / len(images)
    return totals


if __name__ == "__main__":
    main()
