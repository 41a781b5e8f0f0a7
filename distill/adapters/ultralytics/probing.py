"""The same few validation images, looked at again and again during training: what a timeline is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils.torch_utils import unwrap_model

from distill.adapters.ultralytics.anatomy import stride_of
from distill.adapters.ultralytics.framings import framing
from distill.adapters.ultralytics.kinds import kind_of
from distill.adapters.ultralytics.labels import images_of
from distill.attention.geometry import Frame, calibrate
from distill.attention.maps import AttentionMap
from distill.attention.taps import Taps
from distill.distiller import Distiller
from distill.errors import InputError
from distill.pictures.source import Source, spread
from distill.records import write_arrays
from distill.terms.base import Term

PROBES = 8  # images


class Probe:
    """`PROBES` validation images, evenly spread and always the same, in the student's input."""

    def __init__(self, trainer: Any) -> None:
        chosen = list(Source(spread([(file, None) for file in images_of(trainer.data, "val")], PROBES)))
        if not chosen:
            raise InputError("--heatmaps: none of the validation images could be read")
        student = unwrap_model(trainer.model)
        _, family = kind_of(type(student.model[-1]), "the student")
        how = framing(trainer.args.task, [family], square=True)  # one shape, whatever the pictures'
        inputs = [how(picture.pixels, trainer.args.imgsz, stride_of(student)) for picture in chosen]
        self.files = [str(Path(picture.file).absolute()) for picture in chosen]
        self.images = torch.stack([images for images, _ in inputs])
        self.frames = [frame for _, frame in inputs]

    @torch.no_grad()
    def keep(self, path: Path, student: Any, distiller: Distiller) -> None:
        """Write both networks' maps of these images, with where their cells lie; `jobs.seeing.timeline` reads them."""
        network = deepcopy(student).float().eval()
        images = self.images.to(next(network.parameters()).device)
        arrays = {"images": np.array(self.files), **_frames(self.frames)}
        for term in (term for term in distiller.terms if term.maps):
            mine, _ = term.layers()

            def run_student(images: Tensor, layers: tuple[str, ...] = mine) -> dict[str, Tensor]:
                with Taps(network, layers) as taps:
                    network(images)
                    return taps.read()

            arrays.update(_maps("student", network, run_student, images, term))
            assert distiller.teacher is not None  # an attention term has pairs
            arrays.update(_maps("teacher", distiller.teacher.module, distiller.teacher, images, term))
        write_arrays(path, arrays)


def _maps(side: str, network: Any, run: Any, images: Tensor, term: Term) -> dict[str, np.ndarray]:
    """The maps of one network, (N, h, w) float16, divided by their root mean squares; these; and the lattices."""
    modules = dict(network.named_modules())
    features = run(images)
    lattices = calibrate(lambda batch: _read(side, run(batch), term), images)
    arrays: dict[str, np.ndarray] = {}
    for name, values in _read(side, features, term).items():
        rms = values.flatten(1).cpu().double().square().mean(1).sqrt()  # squares may not fit float32
        shape = values.cpu() / torch.where(rms > 0, rms, 1.0).view(-1, 1, 1)
        layer = next(getattr(pair, side) for pair in term.maps if pair.name == name)
        about = (layer, type(modules[layer]).__name__, str(features[layer].shape[1]))
        arrays |= {
            f"{side}_{name}": shape.numpy().astype(np.float16),
            f"{side}_{name}_rms": rms.numpy().astype(np.float32),
            f"{side}_{name}_offset": np.array(lattices[name].offset),
            f"{side}_{name}_stride": np.array(lattices[name].stride),
            f"{side}_{name}_layer": np.array(about),
        }
    return arrays


def _read(side: str, features: Mapping[str, Tensor], term: Term) -> dict[str, Tensor]:
    layers = {pair.name: (getattr(pair, side), pair.kind) for pair in term.maps}
    return {name: AttentionMap.read(features[at], at, kind, term.p).values for name, (at, kind) in layers.items()}


def _frames(frames: list[Frame]) -> dict[str, np.ndarray]:
    return {f"frame_{key}": np.array([getattr(frame, key) for frame in frames]) for key in Frame.__dataclass_fields__}
