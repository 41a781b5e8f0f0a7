"""`distill predict` and `distill export`: what a trained U-Net is used for."""

from __future__ import annotations

import argparse
from typing import Any


def add_to(commands: Any) -> None:
    """Declare the commands."""
    predicting = commands.add_parser(
        "predict",
        help="masks of images or volumes, by a trained U-Net",
        description="Write a mask for every image: PNG with class numbers, or NIfTI with the input's affine.",
    )
    predicting.add_argument("--model", required=True, metavar="FILE", help="a U-Net's checkpoint (best.ckpt)")
    predicting.add_argument(
        "--source", required=True, nargs="+", metavar="PATH", help="images or volumes: files, folders or patterns"
    )
    predicting.add_argument("--out", metavar="DIR", help="folder to write; default: runs/distill/predict, numbered")
    predicting.add_argument("--device", metavar="DEVICE", help="cpu, 0, mps; default: the first GPU, else the CPU")
    predicting.set_defaults(run=run_predict)
    exporting = commands.add_parser(
        "export",
        help="a trained U-Net as ONNX",
        description="Write a U-Net as ONNX beside its checkpoint, for inputs of the size of its training crops.",
    )
    exporting.add_argument("--model", required=True, metavar="FILE", help="a U-Net's checkpoint (best.ckpt)")
    exporting.set_defaults(run=run_export)


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict, then say how much of the images each class takes, and where the masks are."""
    from distill.jobs.prediction import predict, shares_table

    folder, shares = predict(arguments.model, arguments.source, arguments.out, arguments.device)
    print(f"{shares_table(shares)}\n\nmasks  {folder}")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Export, then say where the file is."""
    from distill.errors import InputError
    from distill.loading import is_unet, segment_adapter

    if not is_unet(arguments.model):
        model = arguments.model
        raise InputError(f"--model {model}: this exports a U-Net's .ckpt; for a detector: yolo export model={model}")
    print(f"exported  {segment_adapter().export_onnx(arguments.model)}")
    return 0
