"""A trained network that is looked at: the maps of its layers, and what it predicts, on the same pass."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.models.rtdetr.predict import RTDETRPredictor
from ultralytics.models.yolo.classify import ClassificationPredictor
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.models.yolo.obb import OBBPredictor
from ultralytics.models.yolo.pose import PosePredictor
from ultralytics.models.yolo.segment import SegmentationPredictor

from distill.adapters.ultralytics.anatomy import channels_of, layers_of, stride_of
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.inputs import Checkpoint, read_checkpoint
from distill.adapters.ultralytics.subjects import device_of, trained_at, usual_size
from distill.attention.layers import LayerInfo
from distill.attention.objects import Object
from distill.attention.taps import Taps
from distill.errors import InputError
from distill.teacher import fitted

PREDICTORS = {
    ("yolo", "detect"): DetectionPredictor,
    ("yolo", "segment"): SegmentationPredictor,
    ("yolo", "pose"): PosePredictor,
    ("yolo", "obb"): OBBPredictor,
    ("yolo", "classify"): ClassificationPredictor,
    ("rtdetr", "detect"): RTDETRPredictor,
}  # semantic segmentation has no boxes: only its maps are shown


class Looker:
    """A network in eval mode on `device`; `conf` is the least score of the predictions that are kept.

    With `size` it sees the images at so many pixels on their longer side, whatever the others see; what it answers is
    told in the pixels of the images it is given.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        conf: float = 0.25,
        device: str | torch.device = "cpu",
        size: int | None = None,
    ) -> None:
        self.size = size
        self.file = str(checkpoint.path)
        self.module: nn.Module = checkpoint.module.float().eval().requires_grad_(False).to(device)
        self.task, self.family, self.names = checkpoint.task, checkpoint.family, checkpoint.names
        self.stride = stride_of(self.module)
        self.channels = channels_of(self.module)
        self.device = torch.device(device)
        self.trained_at = trained_at(checkpoint)
        self.imgsz = self.trained_at or usual_size(self.task)
        self._predictor = self._make_predictor(conf)

    def layers(self, imgsz: int) -> list[LayerInfo]:
        """Every layer with its shape, stride and roles, for square images of `imgsz` pixels (or of its own size)."""
        return layers_of(self.module, -(-(self.size or imgsz) // self.stride) * self.stride)

    def features(self, images: Tensor, layers: Sequence[str], module: nn.Module | None = None) -> dict[str, Tensor]:
        """The outputs (B, C, h, w) of these layers for `images` (B, C, H, W); of another `module` of the same shape."""
        network = module or self.module
        with torch.no_grad(), Taps(network, layers) as taps:
            network(self._fitted(images))
            return taps.read()

    def look(
        self, images: Tensor, layers: Sequence[str]
    ) -> tuple[dict[str, Tensor], list[tuple[Object, ...]], list[str]]:
        """Features, and for each image the objects found (boxes in input pixels) and a line on its class, if any."""
        seen = self._fitted(images)
        with torch.no_grad(), Taps(self.module, layers) as taps:
            output = self.module(seen)
            features = taps.read()
        found = self._results(output, seen)
        height, width = (given / own for given, own in zip(images.shape[2:], seen.shape[2:], strict=True))
        objects = [tuple(_scaled(thing, height, width) for thing in _objects(result)) for result in found]
        return features, objects, [_verdict(result) for result in found]

    def _fitted(self, images: Tensor) -> Tensor:
        return images.to(self.device) if self.size is None else fitted(images.to(self.device), self.size, self.stride)

    def _make_predictor(self, conf: float) -> Any:
        kind = PREDICTORS.get((self.family, self.task))
        if kind is None:
            return None
        with quiet():  # it makes no folder unless it saves; named so that it could not be the user's
            overrides = {"conf": conf, "task": self.task, "mode": "predict", "project": tempfile.gettempdir()}
            predictor = kind(overrides={**overrides, "save": False, "verbose": False, "device": str(self.device)})
        predictor.model = self.module
        return predictor

    def _results(self, output: Any, images: Tensor) -> list[Any]:
        """Ultralytics' own results, in input pixels: told that the pictures were of the input's size."""
        if self._predictor is None:
            return [None] * len(images)
        pictures = [np.empty((*images.shape[2:], 3), np.uint8) for _ in images]
        self._predictor.batch = [""] * len(images), None, None
        results: list[Any] = self._predictor.postprocess(output, images, pictures)
        return results


def open_lookers(
    files: dict[str, str], conf: float, device: str | None, trust: bool, teacher_imgsz: int | None = None
) -> dict[str, Looker]:
    """A looker for each network that is given by `--key file`. Raises InputError for what cannot be looked at."""
    for key, file in files.items():
        if file.lower().endswith((".yaml", ".yml")):
            raise InputError(f"--{key} {file}: a description, not a trained network: give a .pt")
    where = device_of(device)
    sizes = {"teacher": teacher_imgsz}
    lookers = {
        key: Looker(read_checkpoint(file, f"--{key}", trust), conf, where, sizes.get(key))
        for key, file in files.items()
    }
    channels = {looker.channels for looker in lookers.values()}
    if len(channels) > 1:
        raise InputError(f"--{' and --'.join(files)} read images of {sorted(channels)} channels: nothing to compare")
    if channels != {3}:
        raise InputError(f"--{next(iter(files))}: it reads {channels.pop()} channels; pictures have 3")
    return lookers


def _objects(result: Any) -> tuple[Object, ...]:
    if result is None or (result.boxes is None and result.obb is None):
        return ()
    boxes = result.boxes if result.obb is None else result.obb
    corners = [()] * len(boxes) if result.obb is None else result.obb.xyxyxyxy.tolist()
    rows = zip(boxes.xyxy.tolist(), boxes.cls.tolist(), boxes.conf.tolist(), corners, strict=True)
    return tuple(
        Object(tuple(box), str(result.names[int(kind)]), score, tuple((x, y) for x, y in turned))
        for box, kind, score, turned in rows
    )


def _scaled(thing: Object, height: float, width: float) -> Object:
    x1, y1, x2, y2 = thing.box
    corners = tuple((x * width, y * height) for x, y in thing.corners)
    return replace(thing, box=(x1 * width, y1 * height, x2 * width, y2 * height), corners=corners)


def _verdict(result: Any) -> str:
    if result is None or result.probs is None:
        return ""
    return f"{result.names[result.probs.top1]} {float(result.probs.top1conf):.2f}"
