"""Tiny data, tiny networks, and a look inside what a run leaves; the fixtures in conftest.py are made of these."""

from __future__ import annotations

import csv
import pickletools
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from distill.scenes import CLASSES, SPLITS

PICO = str(Path(__file__).resolve().parents[2] / "configs" / "models" / "yolo11-pico.yaml")
NETWORKS = {
    "detect": tasks.DetectionModel,
    "segment": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "semantic": tasks.SemanticSegmentationModel,
    "classify": tasks.ClassificationModel,
    "rtdetr": tasks.RTDETRDetectionModel,
}
RTDETR = (
    "RTDETRDecoder",
    ["nc", 16, 20, 4, 4, 1, 32],
)  # 16 channels, 20 queries, 4 points, 4 heads, 1 layer, 32 inside


# ---- networks


def micro(width: int = 1, head: tuple[str, list[Any]] = ("Detect", ["nc"])) -> dict[str, Any]:
    """Nine layers: 2, 3, 4 end the backbone at strides 8, 16, 32 (B3 to B5); 5, 6, 7 feed the head (P3 to P5)."""
    c = 8 * width
    return {
        "nc": 6,
        "backbone": [
            [-1, 1, "Conv", [c, 3, 2]],
            [-1, 1, "Conv", [c, 3, 2]],
            [-1, 1, "Conv", [2 * c, 3, 2]],
            [-1, 1, "Conv", [2 * c, 3, 2]],
            [-1, 1, "Conv", [4 * c, 3, 2]],
        ],
        "head": [
            *([layer, 1, "Conv", [2 * c, 3, 1]] for layer in (2, 3, 4)),
            [[5, 6, 7], 1, *head],
        ],
    }


def network(yaml: str | dict[str, Any], task: str = "detect", nc: int = 6, seed: int = 0, **keys: Any) -> nn.Module:
    """An untrained network with the scenes' class names; `keys` change its yaml (kpt_shape=[4, 3], channels=1)."""
    description = {**(tasks.yaml_model_load(yaml) if isinstance(yaml, str) else yaml), **keys}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = NETWORKS[task](description, ch=keys.get("channels", 3), nc=nc, verbose=False)
    model.names = {i: CLASSES[i] if i < len(CLASSES) else f"class {i}" for i in range(nc)}
    return model


# ---- data


def relabelled(scenes: Path, folder: Path, label: Callable[[np.ndarray], np.ndarray], **keys: Any) -> Path:
    """The scenes with other numbers behind each class: `label(polygon (K, 2))`, both in parts of the image."""
    shutil.copytree(scenes.parent / "images", folder / "images")
    for split in SPLITS:
        (folder / "labels" / split).mkdir(parents=True)
        for file in (scenes.parent / "labels" / split).glob("*.txt"):
            lines = []
            for kind, polygon in polygons(file):
                lines.append(" ".join([kind, *(f"{value:.6f}" for value in label(polygon).ravel())]))
            (folder / "labels" / split / file.name).write_text("\n".join(lines) + "\n")
    YAML.save(folder / "data.yaml", {**YAML.load(scenes), **keys})
    return folder / "data.yaml"


def key_points(polygon: np.ndarray) -> np.ndarray:
    """The box, then its outline's four extreme points, each with a 2 for "visible"."""
    low, high = polygon.min(0), polygon.max(0)
    ends = polygon[[*polygon.argmin(0), *polygon.argmax(0)]]  # (4, 2)
    return np.concatenate([(low + high) / 2, high - low, np.c_[ends, np.full(4, 2)].ravel()])


def turned_box(polygon: np.ndarray) -> np.ndarray:
    return cv2.boxPoints(cv2.minAreaRect(polygon.astype(np.float32))).clip(0, 1)  # (4, 2)


def crops(scenes: Path, folder: Path) -> Path:
    """The objects, cut out along their boxes, in a folder for each of two classes: round and pointed."""
    for split in SPLITS:
        for file in sorted((scenes.parent / "labels" / split).glob("*.txt")):
            image = cv2.imread(str(scenes.parent / "images" / split / f"{file.stem}.png"))
            for number, (kind, polygon) in enumerate(polygons(file)):
                (x1, y1), (x2, y2) = (edge(polygon, axis=0) * len(image) for edge in (np.min, np.max))
                into = folder / split / ("round" if CLASSES[int(kind)] in ("disc", "moon") else "pointed")
                into.mkdir(parents=True, exist_ok=True)
                part = image[int(y1) : int(y2), int(x1) : int(x2)]
                cv2.imwrite(str(into / f"{file.stem}-{number}.png"), cv2.resize(part, (32, 32)))
    return folder


def halved(scenes: Path, folder: Path) -> Path:
    """The upper halves of the scenes, twice as wide as high; the labels are not adapted."""
    shutil.copytree(scenes.parent, folder)
    for file in folder.glob("images/*/*.png"):
        image = cv2.imread(str(file))
        cv2.imwrite(str(file), image[: len(image) // 2])
    return folder / "data.yaml"


def polygons(file: Path) -> list[tuple[str, np.ndarray]]:
    """Class and outline (K, 2) of each line of a label file."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(kind, np.array(numbers, float).reshape(-1, 2)) for kind, *numbers in lines]


# ---- looking inside


def rows(table: Path) -> list[dict[str, float]]:
    """results.csv, a mapping from column to number for each epoch."""
    with open(table, encoding="utf-8", newline="") as file:
        return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(file: Path) -> dict[str, torch.Tensor]:
    """The state of a checkpoint's network, float32, through Ultralytics' own loader."""
    state: dict[str, torch.Tensor] = tasks.load_checkpoint(file)[0].float().state_dict()
    return state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Are two states equal bit for bit?"""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def hooks(module: nn.Module) -> list[str]:
    """Names of the submodules that carry a hook."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [name for name, part in module.named_modules() if any(getattr(part, kind) for kind in kinds)]


def strings_in(file: Path) -> set[str]:
    """Every string in a .pt file's pickle; classes and functions come as "module name"."""
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    return {argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)}


def tensor_bytes(file: Path) -> int:
    """The size of all tensors in a .pt file."""
    with zipfile.ZipFile(file) as archive:
        return sum(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)


def pairs_of(record: Mapping[str, Any], method: str = "attention") -> list[dict[str, Any]]:
    """The pairs of a manifest, or of a plan, that a method compares; none where it does not teach."""
    found: list[dict[str, Any]] = record["methods"].get(method, {}).get("pairs", [])
    return found
