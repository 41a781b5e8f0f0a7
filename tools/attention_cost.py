"""What the attention maps of chosen layers cost in one batch: operations and bytes, from measured shapes.

python tools/attention_cost.py --model yolo11l.yaml --imgsz 640 --batch 64 --layers 6,8,13,16,19,22
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("YOLO_AUTOINSTALL", "false")

import torch
from ultralytics import YOLO

import distill

FLOAT32 = 4  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11l.yaml", metavar="FILE", help="a .yaml or .pt; default: %(default)s")
    parser.add_argument("--imgsz", type=int, default=640, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images in a batch; default: %(default)s")
    parser.add_argument("--layers", default="6,8,13,16,19,22", metavar="LIST", help="default: %(default)s")
    arguments = parser.parse_args()

    network = YOLO(arguments.model).model
    image = torch.zeros(1, 3, arguments.imgsz, arguments.imgsz)  # one is enough: a batch of N has N times everything
    layers = {layer.name: layer for layer in distill.describe(network, image)}
    chosen = [name for pattern in arguments.layers.split(",") for name in distill.resolve(list(layers), pattern)]
    rows = [cost(layers[name], arguments.batch) for name in chosen]
    total = ("together", "", *map(sum, zip(*(row[2:] for row in rows), strict=True)))

    print(f"{arguments.model}, {arguments.imgsz} px, batch {arguments.batch}, float32")
    print(f"{'layer':12} {'features':20} {'MFLOP':>8} {'textbook temporary':>19} {'the map itself':>15}")
    for name, shape, operations, temporary, result in (*rows, total):
        print(f"{name:12} {shape:20} {operations / 1e6:8.1f} {temporary / 1e6:16.1f} MB {result / 1e6:12.2f} MB")


def cost(layer: distill.LayerInfo, batch: int) -> tuple[str, str, int, int, int]:
    """Name, shape, operations of square and sum, bytes of the temporary |F|^2, bytes of the map."""
    positions = batch * layer.size[0] * layer.size[1]
    values = positions * layer.channels
    shape = "x".join(map(str, (batch, *layer.shape[1:])))
    return layer.name, shape, 2 * values, values * FLOAT32, positions * FLOAT32  # one product and one sum per value


if __name__ == "__main__":
    main()
