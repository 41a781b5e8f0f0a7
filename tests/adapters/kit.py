"""What the tests of the door share: tiny networks, files, and the one way in which things are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from distill.adapters.ultralytics.inputs import read_checkpoint
from distill.errors import InputError
from distill.text import one_line

BACKBONE = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
HEADS = {
    "detect": (tasks.DetectionModel, [[1, 2], 1, "Detect", ["nc"]]),
    "segment": (tasks.SegmentationModel, [[1, 2], 1, "Segment", ["nc", 4, 8]]),
    "pose": (tasks.PoseModel, [[1, 2], 1, "Pose", ["nc", "kpt_shape"]]),
    "obb": (tasks.OBBModel, [[1, 2], 1, "OBB", ["nc", 1]]),
    "semantic": (tasks.SemanticSegmentationModel, [[1, 2], 1, "SemanticSegment", ["nc"]]),
    "classify": (tasks.ClassificationModel, [-1, 1, "Classify", ["nc"]]),
    "rtdetr": (tasks.RTDETRDetectionModel, [[1, 2], 1, "RTDETRDecoder", ["nc", 16, 20, 4, 4, 1, 32]]),
}


def description(task: str = "detect", **keys: Any) -> dict[str, Any]:
    return {"nc": 3, "kpt_shape": [3, 3], "backbone": [list(row) for row in BACKBONE], "head": [HEADS[task][1]], **keys}


def network(task: str = "detect", **keys: Any) -> nn.Module:
    return HEADS[task][0](description(task, **keys), verbose=False)


def refusal(call: Callable[[], Any]) -> str:
    """The error's text, which has to be one plain line."""
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable() and one_line(text) == text and text, text
    return text


def teacher(path: Path | str, trust: bool = False) -> str:
    return refusal(lambda: read_checkpoint(path, "--teacher", trust))


def write(name: str, content: Any) -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content) if isinstance(content, str) else YAML.save(name, content)
    return Path(name)


class Calls:
    """Pickled as a call, which whoever unpickles it makes."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call
