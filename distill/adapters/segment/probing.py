"""The same few validation images, looked at again and again during training: what a timeline is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from monai.data import CacheDataset

from distill.adapters.segment import scores
from distill.adapters.segment.plan import Plan
from distill.adapters.segment.watched import Look, looks, see
from distill.attention.maps import AttentionMap
from distill.modes import as_found, same_randomness
from distill.networks.unet import UNet
from distill.records import HEATMAPS, write_arrays
from distill.settings import due
from distill.view.exhibit import STUDENT, TEACHER

PROBES = {2: 8, 3: 3}  # pictures, volumes


class Probe(Callback):
    """Keeps the maps of at most `PROBES` validation images, evenly spread, before the first epoch and when it is due.

    Training goes on as it would have without it: modes, statistics and random states are left as they were found.
    """

    def __init__(self, folder: Path, prepared: Plan, validation: CacheDataset) -> None:
        count = min(PROBES[prepared.data.dims], len(validation))
        self._chosen = [i * len(validation) // count for i in range(count)]
        self._folder, self._plan, self._validation = folder / HEATMAPS, prepared, validation
        self._teachers: dict[str, np.ndarray] | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch == 0:  # not where a run goes on
            self._keep(0, trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if due(self._plan.settings.heatmaps, epoch := trainer.current_epoch + 1):
            self._keep(epoch, trainer, module)

    def _keep(self, epoch: int, trainer: Trainer, module: LightningModule) -> None:
        """Both networks' maps of these images, with what the rows are; `keeping.read_kept` reads them."""
        if not trainer.is_global_zero:
            return
        with same_randomness():
            rows = looks(module.network, self._plan)
            arrays = self._read(STUDENT, module.network, rows)
            if self._teachers is None:  # it does not change
                self._teachers = self._of_teacher(module, rows)
        cases = [self._plan.data.val[i] for i in self._chosen]
        about = {
            "images": np.array([str(case.image.absolute()) for case in cases]),
            "truths": np.array([str(case.mask.absolute()) for case in cases]),
            "rows": np.array(list(rows)),
            "kinds": np.array([sides[STUDENT].shown for sides in rows.values()]),
        }
        write_arrays(self._folder / f"epoch{epoch:04}.npz", {**about, **arrays, **self._teachers})

    def _of_teacher(self, module: LightningModule, rows: Mapping[str, Mapping[str, Look]]) -> dict[str, np.ndarray]:
        teacher = self._plan.teacher
        return self._read(TEACHER, teacher.module.to(module.device), rows) if teacher else {}

    def _read(self, key: str, network: UNet, rows: Mapping[str, Mapping[str, Look]]) -> dict[str, np.ndarray]:
        """Of one network for each row its layer, and for each image the map, (*s); what maps were divided by;
        masks (*S) uint8; Dice (images, classes) unless its classes are not the data's.
        """
        mine = {name: sides[key] for name, sides in rows.items() if key in sides}
        arrays = {name: value for row, look in mine.items() for name, value in _about(f"{key}_{row}", look).items()}
        factors: dict[str, list[float]] = {name: [] for name in mine}
        dice = []
        device, classes = next(network.parameters()).device, len(self._plan.data.names)
        with as_found(network):
            network.eval()
            for number, index in enumerate(self._chosen):
                case = self._validation[index]
                images = case["image"].unsqueeze(0).to(device)
                logits, maps = see(network, images, mine, self._plan.crop, self._plan.settings.p)
                found = logits.argmax(1)  # (1, *S)
                arrays[f"{key}_mask_{number}"] = found[0].cpu().numpy().astype(np.uint8)
                for name, one in maps.items():
                    arrays[f"{key}_{name}_{number}"], factor = _packed(one)
                    factors[name].append(factor)
                if classes == network.classes:
                    dice.append(scores.overlaps(found, case["mask"].to(device), classes)["dice"][0].cpu().numpy())
        arrays |= {f"{key}_{name}_rms": np.array(found, np.float32) for name, found in factors.items()}
        return {**arrays, **({f"{key}_dice": np.stack(dice)} if dice else {})}


def _about(name: str, look: Look) -> dict[str, np.ndarray]:
    layer = look.layer
    told = np.array((layer.name, look.type, str(layer.channels)))
    return {f"{name}_layer": told, f"{name}_stride": np.array(look.stride)}


def _packed(one: AttentionMap) -> tuple[np.ndarray, float]:
    """The map of one image, and what it was divided by: an energy's root mean square, in half precision; a gate's 1.

    A gate stays in float32: the steps of half precision below 1 are larger than the differences in an open gate.
    """
    values = one.values[0].cpu().double().numpy()
    if one.kind == "gate":
        return values.astype(np.float32), 1.0
    factor = float(np.sqrt(np.mean(values**2))) or 1.0
    return (values / factor).astype(np.float16), factor
