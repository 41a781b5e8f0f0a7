"""A student whose first weights make it answer as its teacher does, as far as least squares can: `--init fit`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER, RANK

from distill.adapters.ultralytics.heads import outputs_of
from distill.adapters.ultralytics.inheriting import inherit, places_of, shared_tensors
from distill.adapters.ultralytics.racing import OWN, best_of, parts_of, race
from distill.adapters.ultralytics.rehearsal import student_of
from distill.adapters.ultralytics.session import read_teacher
from distill.adapters.ultralytics.sprints import seeded
from distill.adapters.ultralytics.starting import MEASURED
from distill.adapters.ultralytics.views import alike, spread, training_images
from distill.adapters.ultralytics.worth import signals_of
from distill.attention.taps import Taps
from distill.modes import as_found
from distill.networks.fitting import Solved, fit, targets_of
from distill.networks.noting import AT_ONCE, POSITIONS
from distill.records import has_bfloat16

DEEPEST = 32  # the stride whose grid has to give enough positions
IMAGES = 32, 256  # at least, at most
FITTED = "fitted"
MOMENTUM = 0.1  # of running statistics, in place of 0.03: torch's own default
CHOOSERS = 64  # of the images, on which channels are chosen
INTEREST = 4  # pixels to a cell of the map of where the teacher sees something


def fit_student(trainer: Any) -> None:
    """Fit the trainer's student to its teacher on augmented training images, in place, on every rank alike.

    With `init` "best" the student has weights of its own, and whichever start wins a short race is taken; its own where
    it is a tie. What was done stands in `own["fitted"]`, and is told. The caller restores the random generators.
    """
    own, student = trainer.own, student_of(trainer)
    began = time.monotonic()
    if RANK in {-1, 0}:
        LOGGER.info("fitting the student to the teacher by least squares ...")
        teacher = read_teacher(own, own["trust"]).module.float()
        seeded(own["seed"])  # the images and their augmentation
        count = len(trainer.train_loader.dataset)
        shown = parts_of(count)[0] if own["init"] == MEASURED else range(count)  # the judges of a race are left out
        chosen = spread(shown, image_count(trainer.args.imgsz))
        images = alike(list(training_images(trainer, chosen)))
        fitted, told = _fitted(student, teacher, trainer.data["names"], images)
        found = {"start": FITTED, "images": len(images), "distinct": len(set(chosen)), **_figures(told)}
        found["seconds"] = round(time.monotonic() - began, 1)
        if own["init"] == MEASURED:
            found |= _raced(trainer, {FITTED: fitted, OWN: student})
        if found["start"] == FITTED:
            student.load_state_dict(fitted.state_dict())  # `keep_up` comes when the average has been made
        own["fitted"] = found
        LOGGER.info(f"first weights: {said(found)}")
        trainer._clear_memory()
    if dist.is_initialized():
        answer = [own.get("fitted")]
        dist.broadcast_object_list(answer, 0)
        own["fitted"] = answer[0]
        for tensor in student.state_dict().values():
            dist.broadcast(tensor, 0)


def _fitted(student: Any, teacher: Any, names: Mapping[int, str], images: Tensor) -> tuple[Any, dict[str, Solved]]:
    """A copy of the student that is fitted, and how well each convolution could be."""
    whole = deepcopy(student).cpu()  # channels are followed on the CPU
    guide = Guide(whole, teacher, names, images)
    inherit(whole, teacher.cpu(), names, guide.places)
    told = guide.fit(whole.to(images.device))
    keep_up(whole)
    return whole, told


def keep_up(student: nn.Module) -> None:
    """Have running statistics follow a fitted student's training faster: validation would see another network.

    Steps at a learning rate that is made for drawn weights move a fitted network's means further than Ultralytics'
    momentum of 0.03 follows. What is trained is the same, for training does not look at them.
    """
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, MOMENTUM)


def _raced(trainer: Any, starts: Mapping[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    losses, steps = race(trainer, starts, trainer.own["seed"])
    took = round(time.monotonic() - began, 1)
    return {"start": best_of(losses), "losses": losses, "raced_steps": steps, "raced_seconds": took}


def _figures(told: Mapping[str, Solved]) -> dict[str, Any]:
    """What a fit comes to: R^2 on average; the largest gain of a BatchNorm, and the sharpest weights of all."""
    mean = sum(one.r2 for one in told.values()) / len(told) if told else 0.0
    largest = {key: max((getattr(one, key) for one in told.values()), default=0.0) for key in ("gain", "sharpness")}
    return {"convolutions": len(told), "r2": mean, **largest}


class Guide:
    """What the teacher has a student's convolutions give on some `images`, to which copies of it can be fitted.

    `places` are the teacher's channels that the student's stand for. Both networks come on the CPU, where channels are
    followed; the teacher goes to the images' device, laid out anew. `names` are the student's classes.
    """

    def __init__(self, student: Any, teacher: Any, names: Mapping[int, str], images: Tensor) -> None:
        both, common = dict(convolutions(teacher)), shared_tensors(student, teacher)
        mine = {name: norm for name, norm in convolutions(student) if both.get(name) == norm}
        self._convolutions = {name: norm for name, norm in mine.items() if f"{name}.weight" in common}
        self.images = images
        outputs = [last_of(teacher, output.classes) for output in outputs_of(teacher)]
        images = images.to(memory_format=torch.channels_last)
        teacher.to(images.device, memory_format=torch.channels_last)
        low = images.is_cuda or (images.device.type == "cpu" and has_bfloat16())
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low):  # fits are not as exact as that
            scores = confidences(teacher, outputs, images)
            size = tuple(side // INTEREST for side in images.shape[2:])
            maps = [F.interpolate(score, size=size, mode="bilinear") for score in scores.values()]
            interest = torch.stack(maps).amax(0) if maps else None
            signals = signals_of(teacher, images[:CHOOSERS], None if interest is None else interest[:CHOOSERS])
        self.places = places_of(student, teacher.cpu(), names, signals)
        teacher.to(images.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
            self._targets = targets_of(teacher, self._convolutions, self.places, images, interest, scores)

    def fit(self, student: Any) -> dict[str, Solved]:
        """Fit all convolutions that both networks have; how well each could be."""
        return fit(student, self._targets, self._convolutions, self.images)


def last_of(model: nn.Module, name: str) -> str:
    """The module itself, or the last one of a sequence, which gives its output."""
    module = model.get_submodule(name)
    return f"{name}.{len(module) - 1}" if isinstance(module, nn.Sequential) else name


def convolutions(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each convolution with its BatchNorm, and those with biases, which give outputs."""
    inside = set()
    for name, module in model.named_modules():
        if isinstance(module, Conv) and isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
            inside.add(f"{name}.conv")
            yield f"{name}.conv", f"{name}.bn"
        elif isinstance(module, nn.Conv2d) and module.bias is not None and name not in inside:
            yield name, ""


@torch.no_grad()
def confidences(teacher: nn.Module, outputs: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """The best class probability at each cell of each output, (B, 1, H, W)."""
    if not outputs:
        return {}
    parts: dict[str, list[Tensor]] = {name: [] for name in outputs}
    with as_found(teacher), Taps(teacher.eval(), outputs) as taps:
        for part in images.split(AT_ONCE):
            teacher(part)
            for name, logits in taps.read().items():
                parts[name].append(logits.float().sigmoid().amax(1, keepdim=True))
    return {name: torch.cat(found) for name, found in parts.items()}


def image_count(imgsz: int) -> int:
    """As many images as give the deepest level enough positions."""
    low, high = IMAGES
    return min(max(POSITIONS // max(imgsz // DEEPEST, 1) ** 2, low), high)


def said(found: Mapping[str, Any]) -> str:
    """What was done, in words: from `own["fitted"]`."""
    how = f"{found['convolutions']} convolutions on {found['images']} augmented views of {found['distinct']} "
    how += f"training images, R2 {found['r2']:.3f} on average, largest gain {found['gain']:.1f}"
    how += f", in {found['seconds']:.0f} s"
    if not found.get("losses"):
        return f"fitted, {how}"
    taken = "your student's weights were kept" if found["start"] == OWN else "your student's weights were replaced"
    losses = ", ".join(f"{loss:.3f} from {name}" for name, loss in found["losses"].items())
    race = f"loss after {found['raced_steps']} steps of training {losses} weights, on images kept apart"
    return f"{taken}: {race} ({found['raced_seconds']:.0f} s); fitted: {how}"
