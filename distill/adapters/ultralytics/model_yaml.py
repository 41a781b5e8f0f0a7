"""Descriptions of networks (yolo11n.yaml): found as Ultralytics finds them, and checked before they are built.

Building a network from a yaml evaluates its `activation:` and calls whatever its rows name, so both are limited to
layers here, unless the file is Ultralytics' own. Ultralytics limits them only where its safe-loading flag is on.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import ROOT
from ultralytics.utils.checks import check_yaml

from distill.adapters.ultralytics.environment import TRUST, shipped
from distill.adapters.ultralytics.kinds import SUPPORTED, kind_of
from distill.errors import InputError
from distill.text import given, nearest, one_line

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ModelYaml:
    """An untrained network as a yaml describes it.

    `path` is what Ultralytics must be given: it holds the letter of the scale (yolo11n.yaml), which the file it leads
    to may not (yolo11.yaml). `yaml` is the description as Ultralytics reads it, with that scale. `family` is 'yolo' or
    'rtdetr'.
    """

    path: str
    task: str
    family: str
    yaml: dict[str, Any]
    channels: int
    nc: int


def read_model_yaml(path: str | Path, argument: str, trust: bool = False) -> ModelYaml:
    """The network that a yaml describes; a local file wins over one that Ultralytics ships.

    Raises InputError when there is no such file, when it does not describe a network that can be distilled and built,
    and, without `trust`, when building it would run code.
    """
    where = given(argument, path)
    file = _find(str(path), where)
    path = os.path.abspath(file) if os.path.isfile(os.path.expanduser(path)) else str(path)
    try:
        yaml = tasks.yaml_model_load(path)
    except Exception as error:  # of the YAML parser, of the file system
        raise InputError(f"{where}: not readable as YAML ({one_line(error)})") from error
    rows = list(_rows(yaml, where))
    if not trust and not shipped(file):
        check_architecture(yaml, where)
    head = _layer(rows[-1][2])
    if head is None:
        raise InputError(f"{where}: its last layer, {rows[-1][2]!r}, is no head; {SUPPORTED}")
    task, family = kind_of(head, where)
    nc, channels = yaml.get("nc"), yaml.get("channels", 3)
    if not all(isinstance(n, int) and n > 0 for n in (nc, channels)):
        raise InputError(f"{where}: 'nc' (number of classes) and 'channels' must be whole numbers above 0")
    if task == "pose" and not yaml.get("kpt_shape"):
        raise InputError(f"{where}: no 'kpt_shape', which pose needs, such as [17, 3]")
    if not shipped(file):
        _try(yaml, where)
    return ModelYaml(path, task, family, yaml, channels, nc)


def check_architecture(yaml: Mapping[str, Any], where: str) -> None:
    """Raise InputError if building this network would evaluate, call or download something; `where` is its origin."""
    activation = yaml.get("activation")
    if activation and not _is_activation(activation):
        raise InputError(
            f"{where}: activation {one_line(activation)!r} would be run as code; write it as nn.SiLU() or "
            f"nn.LeakyReLU(0.1), or {TRUST}"
        )
    for number, (_, _, name, args) in enumerate(_rows(yaml, where)):
        layer = _layer(name)
        if layer is None or layer.__module__ == tasks.__name__:  # a whole network would read a further yaml
            raise InputError(f"{where}: layer {number} is {name!r}, which is no layer; correct it, or {TRUST}")
        if layer.__name__ == "TorchVision" and (len(args) < 3 or args[2] not in (None, "None")):
            raise InputError(
                f"{where}: layer {number} downloads the weights of a torchvision network; make them None, or {TRUST}"
            )


def _find(path: str, where: str) -> Path:
    """The file that `yaml_model_load` will read."""
    if "://" in path:
        raise InputError(f"{where}: an address; download the file and give its path")
    if not path.lower().endswith(SUFFIXES):
        raise InputError(f"{where}: not a model description, whose name ends in .yaml")
    local = Path(os.path.expanduser(path))
    if local.is_file():
        return local
    p6 = re.sub(r"^(yolov[58])([nsmlx])6$", r"\1\2-p6", Path(path).stem)  # yolov8n6 has become yolov8n-p6
    name = str(Path(path).with_name(p6 + Path(path).suffix))
    unified = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)  # yolo11n.yaml -> yolo11.yaml, as Ultralytics has it
    if (found := check_yaml(name, hard=False) or check_yaml(unified, hard=False)) and Path(found).is_file():
        return Path(found)
    near = [f.name for folder in (local.parent, *(ROOT / "cfg/models").iterdir()) for f in folder.glob("*.y*ml")]
    raise InputError(f"{where}: no such file{nearest(Path(unified).name, near)}")


def _rows(yaml: Mapping[str, Any], where: str) -> Iterator[tuple[Any, int, str, list[Any]]]:
    """The layers, backbone first: input, repeats, class, arguments."""
    for part in ("backbone", "head"):
        rows = yaml.get(part)
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{where}: no {part}; a model description lists layers under 'backbone' and 'head'")
        for row in rows:
            match row:
                case [_, int(), str(), list()]:
                    yield tuple(row)
                case _:
                    raise InputError(f"{where}: {part} row {one_line(row)} is not [from, repeats, layer, [arguments]]")


def _layer(name: str) -> type[nn.Module] | None:
    """The class that a row's name stands for in `parse_model`; None when it stands for anything else."""
    if name.startswith("torchvision.ops."):
        import torchvision

        found = getattr(torchvision.ops, name.removeprefix("torchvision.ops."), None)
    elif name.startswith("nn."):
        found = getattr(nn, name.removeprefix("nn."), None)
    else:  # Silence became nn.Identity, and is still read
        found = nn.Identity if name == "Silence" else getattr(tasks, name, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _is_activation(text: Any) -> bool:
    """Whether this is `nn.Name(...)` or `torch.nn.Name(...)` with literal arguments and a layer of torch's."""
    try:
        call: Any = ast.parse(str(text).strip(), mode="eval").body
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(argument)
        origin, _, name = ast.unparse(call.func).rpartition(".")
    except (AttributeError, SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: deep nesting
        return False
    return isinstance(text, str) and origin in ("nn", "torch.nn") and _layer(f"nn.{name}") is not None


def _try(yaml: Mapping[str, Any], where: str) -> None:
    """Build the layers without memory or random numbers, to meet a mistake before a run folder exists."""
    scales, scale = yaml.get("scales"), yaml.get("scale")
    if isinstance(scales, dict) and scale and scale not in scales:
        raise InputError(f"{where}: has no scale '{scale}', only {one_line(', '.join(map(str, scales)))}")
    plain = {**deepcopy(dict(yaml)), "activation": None}  # a failing build would leave the activation behind
    try:
        with torch.device("meta"):
            tasks.parse_model(plain, ch=yaml.get("channels", 3), verbose=False)
    except Exception as error:  # a layer may raise anything at wrong arguments
        raise InputError(f"{where}: cannot be built ({type(error).__name__}: {one_line(error)})") from error
