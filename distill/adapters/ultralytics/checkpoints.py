"""Trained networks out of .pt files, read without running what a stranger put into them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.autobackend import check_class_names
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.checks import check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

from distill.adapters.ultralytics.environment import TRUST
from distill.adapters.ultralytics.kinds import kind_of
from distill.adapters.ultralytics.model_yaml import check_architecture
from distill.adapters.ultralytics.pickles import check_pickle
from distill.errors import InputError
from distill.text import given, nearest, one_line

EXPORTS = {".onnx", ".engine", ".torchscript", ".tflite", ".pb", ".mlpackage", ".mnn", ".xml", ".pte", ".rknn", ".imx"}
TENSORS = ("model", "ema", "optimizer", "scaler")  # of a checkpoint; everything else in it is small


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network out of a .pt file: float32, in eval mode, on the CPU.

    `family` is 'yolo' or 'rtdetr'. `fused`: its convolutions have swallowed their BatchNorm, so it can teach but no
    longer learn. `raw` is what else the file holds (epoch, train_args, ...), without tensors.
    """

    path: Path
    module: nn.Module
    task: str
    family: str
    channels: int
    names: dict[int, str]
    nc: int
    fused: bool
    raw: dict[str, Any]


def read_checkpoint(path: str | Path, argument: str, trust: bool = False) -> Checkpoint:
    """The network in a .pt file, or in one of Ultralytics' published ones, which is downloaded as Ultralytics does.

    `argument` is the option that carried the path ("--teacher", "pretrained="). Nothing in the file is executed unless
    `trust` is given. Raises InputError for whatever is not a checkpoint of a network that can be distilled.
    """
    where = given(argument, path)
    file = _find(str(path), where)
    if not trust:
        check_pickle(file, where)
    content = _load(file, where, trust)
    module: Any = _network(content, where)
    task, family = kind_of(type(module.model[-1]), where, type(module))
    if not trust:
        check_architecture(module.yaml, f"{where}: the architecture in it")
        _drop_hooks(module)
    _complete(module, file, task, content)
    head = module.model[-1]
    try:
        names = check_class_names(module.names)
        nc = head.linear.out_features if task == "classify" else head.nc
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: its class names or their number are damaged ({one_line(error)})") from error
    fused = any(isinstance(part, Conv) and not hasattr(part, "bn") for part in module.modules())
    raw = {key: value for key, value in content.items() if key not in TENSORS}
    return Checkpoint(file, module, task, family, module.yaml.get("channels", 3), names, nc, fused, raw)


def _find(path: str, where: str) -> Path:
    """The file on this machine, absolute; links are not followed, as their targets may lack the suffix."""
    if "://" in path:
        raise InputError(f"{where}: an address; download the file and give its path")
    file = Path(os.path.expanduser(path))
    if os.path.isdir(file):
        inside = sorted(str(f.relative_to(file)) for p in ("*.pt", "weights/*.pt") for f in file.glob(p))
        raise InputError(f"{where}: a folder; give the .pt file{f' in it, {inside[0]}' if inside else ''}")
    if file.suffix.lower() in EXPORTS:
        raise InputError(f"{where}: an export, which holds no trainable network; give the .pt it was made from")
    published = check_yolov5u_filename(path, verbose=False)
    if not os.path.exists(file) and published in GITHUB_ASSETS_NAMES and file.suffix.lower() == ".pt":
        file = _download(published, where)
    if not os.path.exists(file):
        near = [f.name for f in file.parent.glob("*.pt")] if os.path.isdir(file.parent) else []
        names = GITHUB_ASSETS_NAMES if file.name == path else ()
        raise InputError(
            f"{where}: no such file{nearest(file.name, [*near, *sorted(names)], ending=file.suffix.lower())}"
        )
    if file.suffix.lower() != ".pt":
        raise InputError(f"{where}: not a checkpoint, whose name ends in .pt")
    if not os.access(file, os.R_OK):
        raise InputError(f"{where}: you may not read this file; correct its permissions")
    file = Path(os.path.abspath(file))
    if (read := check_yolov5u_filename(str(file).strip().replace("'", ""), verbose=False)) != str(file):
        raise InputError(f"{where}: Ultralytics would read {read} instead; rename the file")
    return file


def _download(name: str, where: str) -> Path:
    try:
        file = Path(attempt_download_asset(name))
    except Exception as error:  # whatever a network can do
        file, reason = Path(name), one_line(error)
    else:
        reason = "no file came"
    if not os.path.exists(file):
        raise InputError(
            f"{where}: not on this machine, and the download failed ({reason}); "
            "fetch it from https://github.com/ultralytics/assets/releases and give its path"
        )
    return file


def _load(file: Path, where: str, trust: bool) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch_safe_load(file, safe_only=not trust)[0]
        return content
    except Exception as error:  # a file may raise anything
        # What the loader allowed is registered by now, so that what is left is what it refused.
        refused: list[str] = []
        with suppress(Exception):
            refused = [] if trust else sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        if refused:
            listed = one_line(", ".join(refused[:3])) + (", ..." if len(refused) > 3 else "")
            reason = f"names {listed}, which no checkpoint of Ultralytics' does, and was not loaded; {TRUST}"
        else:
            reason = f"not an Ultralytics checkpoint ({one_line(error)})"
        raise InputError(f"{where}: {reason}") from error


def _network(content: dict[str, Any], where: str) -> nn.Module:
    if content.get("modelopt") is not None:
        raise InputError(f"{where}: trained for quantization (modelopt); give the checkpoint from before that")
    module = next((content[key] for key in ("ema", "model") if content.get(key) is not None), None)
    if isinstance(module, dict) or (module is None and any(torch.is_tensor(v) for v in content.values())):
        raise InputError(f"{where}: weights without their network (a state_dict); give a .pt saved by Ultralytics")
    if isinstance(module, nn.Module):
        layers, yaml = getattr(module, "model", None), getattr(module, "yaml", None)
        if isinstance(layers, nn.Sequential) and len(layers) and isinstance(yaml, dict):
            return module
    found = "no network" if module is None else f"a {type(module).__name__}, not an Ultralytics network"
    raise InputError(f"{where}: holds {found}; give a .pt saved by Ultralytics")


def _drop_hooks(module: nn.Module) -> None:
    """A hook that came with a file runs unseen in every forward; a network needs none."""
    for part in module.modules():
        part.__dict__.update({key: value for key, value in vars(nn.Module()).items() if "hook" in key})


def _complete(module: Any, file: Path, task: str, content: dict[str, Any]) -> None:
    """What `load_checkpoint` does to the module of an older file, so that it runs under this version."""
    module.float().eval()
    arguments = content.get("train_args")
    module.args = {**DEFAULT_CFG_DICT, **(arguments if isinstance(arguments, dict) else {})}
    module.pt_path, module.task = str(file), task
    if not hasattr(module, "stride"):
        module.stride = torch.tensor([32.0])
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = True
        elif isinstance(part, nn.Upsample) and not hasattr(part, "recompute_scale_factor"):
            part.recompute_scale_factor = None
