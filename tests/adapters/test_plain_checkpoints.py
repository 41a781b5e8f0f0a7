"""What a run saves is Ultralytics' alone: an interpreter that has no `distill` loads, validates and exports it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

import distill

from .tiny import PICO, hooks, strings_in, tensor_bytes, weights

FILES = ("best.pt", "last.pt", "epoch0.pt", "epoch1.pt")
USE = """
import importlib.util, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "distill":
            raise ModuleNotFoundError(f"{name} is kept out of this interpreter")

sys.meta_path.insert(0, Blocker())
try:
    import distill
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("distill can be imported: this proves nothing")

import numpy, torch
from ultralytics import YOLO

data, *files = sys.argv[1:]
found = {}
for file in files:
    model = YOLO(file)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.model.eval()(image)[0]
    here = found[file] = {"type": type(model.model).__name__, "anchors": list(expected.shape)}
    here["map"] = float(model.val(data=data, imgsz=64, device="cpu", plots=False, project="val").box.map)
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        import onnxruntime
        exported = YOLO(file).export(format="onnx", imgsz=64, simplify=False)
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        here["difference"] = float(numpy.abs(output - expected.numpy()).max())
print("RESULT" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def result(scenes: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> distill.TrainResult:
    project = tmp_path_factory.mktemp("plain")
    names = {"teacher": str(teacher), "student": PICO, "data": str(scenes), "project": str(project)}
    learning: dict[str, Any] = {"epochs": 2, "batch": 4, "nbs": 4, "warmup_epochs": 0, "save_period": 1}
    return distill.train(**names, **learning, imgsz=64, plots=False, device="cpu")


@pytest.fixture(scope="module")
def elsewhere(
    result: distill.TrainResult, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What an interpreter without distill made of each file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    files = [str(shutil.copy(result.folder / "weights" / name, folder)) for name in FILES]  # exports lie beside them
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(scenes), *files],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    return {Path(file).name: entry for file, entry in found.items()}


@pytest.mark.parametrize("name", FILES)
def test_it_loads_and_validates_without_distill(name: str, elsewhere: dict[str, dict[str, Any]]) -> None:
    assert elsewhere[name]["type"] == "DetectionModel"
    assert elsewhere[name]["anchors"] == [1, 4 + 6, 64 + 16 + 4]
    assert 0 <= elsewhere[name]["map"] <= 1


@pytest.mark.parametrize("name", FILES)
def test_it_exports_to_onnx_without_distill(name: str, elsewhere: dict[str, dict[str, Any]]) -> None:
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        pytest.skip("onnx and onnxruntime are not installed")
    assert elsewhere[name]["difference"] < 1e-2  # pixels, of the boxes


@pytest.mark.parametrize("name", FILES)
def test_it_holds_nothing_of_ours(name: str, result: distill.TrainResult) -> None:
    file = result.folder / "weights" / name
    assert not [text for text in strings_in(file) if text.startswith("distill.")]  # classes come as "module name"
    content = torch.load(file, weights_only=False)
    network = content["ema"] if content["ema"] is not None else content["model"]
    assert type(network) is DetectionModel and not hooks(network)
    state = network.state_dict()
    assert state.keys() == DetectionModel(PICO, nc=6, verbose=False).state_dict().keys()  # and no teacher
    size = sum(tensor.nbytes for tensor in state.values())
    assert "distill" not in vars(network).get("args", {})
    if name in ("best.pt", "last.pt"):
        assert "distill" not in strings_in(file)
        assert tensor_bytes(file) < size + 4096  # anchors and strides, too; the teacher alone would be 60 times that
    else:  # with the optimizer's two float32 averages; our settings, a plain dict, are what resume needs
        assert tensor_bytes(file) < 5 * size
        assert set(map(type, content["train_args"]["distill"].values())) <= {
            str,
            float,
            int,
            bool,
            list,
            dict,
            type(None),
        }


def test_the_files_are_those_of_different_epochs(result: distill.TrainResult) -> None:
    folder = result.folder / "weights"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    first, second, last = (weights(folder / name) for name in ("epoch0.pt", "epoch1.pt", "last.pt"))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(second[name], last[name]) for name in second)
