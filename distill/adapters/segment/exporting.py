"""A U-Net without Python: ONNX."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch

from distill.adapters.segment.networks import read_checkpoint
from distill.errors import InputError
from distill.text import one_line


def export_onnx(model: str) -> Path:
    """Write `best.onnx` beside `best.ckpt`: `images` (1, C, *S) of the training crop's size -> `logits` (1, K, *S).

    Images must be normalised as in training, to mean 0 and standard deviation 1. Raises InputError where onnx is
    missing, where the file is there already, or for what is no U-Net's checkpoint.
    """
    if find_spec("onnx") is None:
        raise InputError("exporting needs onnx: pip install 'attention-distill[export]'")
    trained = read_checkpoint(model, "--model")
    file = trained.path.with_suffix(".onnx")
    if file.exists():
        raise InputError(f"{file} exists already: move it away")
    image = torch.zeros(1, trained.module.in_channels, *trained.crop)
    aside = file.with_name(f".{file.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, on its future
            torch.onnx.export(
                trained.module, (image,), aside, input_names=["images"], output_names=["logits"], dynamo=False
            )
        aside.replace(file)
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"{model}: not exported: {one_line(error)}") from error
    finally:
        aside.unlink(missing_ok=True)  # there only if something failed
    return file
