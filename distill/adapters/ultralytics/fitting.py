"""A student whose first weights make it answer as its teacher does, as far as least squares can: `--init fit`."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER, RANK

from distill.adapters.ultralytics.heads import outputs_of
from distill.adapters.ultralytics.inheriting import inherit, places_of, shared_tensors
from distill.adapters.ultralytics.rehearsal import student_of, untouched
from distill.adapters.ultralytics.session import read_teacher
from distill.adapters.ultralytics.worth import signals_of
from distill.attention.taps import Taps
from distill.modes import as_found
from distill.networks.fitting import Solved, fit, targets_of
from distill.networks.noting import AT_ONCE, POSITIONS
from distill.records import has_bfloat16

DEEPEST = 32  # the stride whose grid has to give enough positions
IMAGES = 32, 256  # at least, at most
FITTED = "fitted"
MEASURED = "best"  # the `--init` that compares starts
HEAD = "head"  # the one that fits the head alone
HEAD_FITTED = "own, head fitted"
OWN = "own"  # weights that a student has been trained to
MARGIN = 0.01  # by which the loss of another start has to be below that of its own
JUDGES = 64  # further images, as far as there are any, on which starts are compared
BATCH = 16
CHOOSERS = 64  # of the images, on which channels are chosen
INTEREST = 4  # pixels to a cell of the map of where the teacher sees something


def fit_student(trainer: Any) -> None:
    """Fit the trainer's student to its teacher on augmented training images, in place, on every rank alike.

    With `init` "best" the student has weights of its own, and the start whose loss on further training images is
    the least is taken: its own weights, its own with the head fitted, or all fitted; its own where it is a tie. What
    was done stands in `own["fitted"]`, and is told. The caller restores the random generators.
    """
    own, student = trainer.own, student_of(trainer)
    began = time.monotonic()
    if RANK in {-1, 0}:
        LOGGER.info("fitting the student to the teacher by least squares ...")
        teacher = read_teacher(own, own["trust"]).module.float()
        random.seed(own["seed"])  # the images and their augmentation
        np.random.seed(own["seed"])
        torch.manual_seed(own["seed"])
        everything = range(len(trainer.train_loader.dataset))
        chosen = spread(everything, image_count(trainer.args.imgsz))
        images = alike(list(training_images(trainer, chosen)))
        starts = dict(_starts(own, student, teacher, trainer.data["names"], images))
        losses: dict[str, float] = {}
        if own["init"] == MEASURED:
            others = sorted(set(everything) - set(chosen)) or everything  # a small set has none
            judges = list(training_images(trainer, spread(others, JUDGES)))
            losses = {name: task_loss(start, judges, trainer.per_image) for name, (start, _) in starts.items()}
        taken = best_of(losses) if losses else next(iter(starts))
        start, told = starts[taken]
        student.load_state_dict(start.state_dict())
        own["fitted"] = {"start": taken, "images": len(images), "distinct": len(set(chosen)), "losses": losses}
        own["fitted"] |= _figures(told)
        own["fitted"]["seconds"] = round(time.monotonic() - began, 1)
        LOGGER.info(f"first weights: {said(own['fitted'])}, in {own['fitted']['seconds']:.0f} s")
        trainer._clear_memory()
    if dist.is_initialized():
        for tensor in student.state_dict().values():
            dist.broadcast(tensor, 0)


def _starts(
    own: Mapping[str, Any], student: Any, teacher: Any, names: Mapping[int, str], images: Tensor
) -> Iterator[tuple[str, tuple[Any, dict[str, Solved]]]]:
    """Copies of the student to begin with, by name, with the R^2 of what was fitted in them."""
    whole = deepcopy(student).cpu()  # channels are followed on the CPU
    guide = Guide(whole, teacher, names, images)
    inherit(whole, teacher.cpu(), names, guide.places)
    whole.to(images.device)
    if own["init"] != HEAD:
        yield FITTED, (whole, guide.fit(whole))
    if own["init"] in (HEAD, MEASURED):
        head = deepcopy(student)
        yield HEAD_FITTED, (head, guide.fit(head, head=True))
    if own["init"] == MEASURED:
        yield OWN, (deepcopy(student), {})


def _figures(told: Mapping[str, Solved]) -> dict[str, Any]:
    """What a fit comes to: R^2 on average; the largest gain of a BatchNorm, and the sharpest weights of all."""
    if not told:
        return {"convolutions": 0, "r2": None}
    mean = sum(one.r2 for one in told.values()) / len(told)
    largest = {key: max(getattr(one, key) for one in told.values()) for key in ("gain", "sharpness")}
    return {"convolutions": len(told), "r2": mean, **largest}


def best_of(losses: Mapping[str, float]) -> str:
    """The start with the least loss; its own weights unless another is below them by a margin."""

    def key(name: str) -> tuple[bool, float]:
        loss = losses[name]
        if not math.isfinite(loss):
            return True, float(name != OWN)
        return False, loss if name == OWN else loss + MARGIN * abs(loss)

    return min(losses, key=key)


class Guide:
    """What the teacher has a student's convolutions give on some `images`, to which copies of it can be fitted.

    `places` are the teacher's channels that the student's stand for. Both networks come on the CPU, where channels are
    followed; the teacher goes to the images' device, laid out anew. `names` are the student's classes.
    """

    def __init__(self, student: Any, teacher: Any, names: Mapping[int, str], images: Tensor) -> None:
        both, common = dict(convolutions(teacher)), shared_tensors(student, teacher)
        mine = {name: norm for name, norm in convolutions(student) if both.get(name) == norm}
        self._convolutions = {name: norm for name, norm in mine.items() if f"{name}.weight" in common}
        self._head = f"model.{len(student.model) - 1}."
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

    def fit(self, student: Any, head: bool = False) -> dict[str, Solved]:
        """Fit all convolutions that both networks have, or those of the `head` alone; how well each could be."""
        chosen = {name: norm for name, norm in self._convolutions.items() if not head or name.startswith(self._head)}
        return fit(student, self._targets, chosen, self.images)


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


@torch.no_grad()
def task_loss(student: Any, batches: list[dict[str, Any]], per_image: bool) -> float:
    """The task's own loss per image, in eval mode."""
    total = 0.0
    with as_found(student):
        student.eval()
        for batch in batches:
            loss = student.loss(dict(batch))[0].sum().item()
            total += loss / (len(batch["img"]) if per_image else 1)
    return total / len(batches)


def image_count(imgsz: int) -> int:
    """As many images as give the deepest level enough positions."""
    low, high = IMAGES
    return min(max(POSITIONS // max(imgsz // DEEPEST, 1) ** 2, low), high)


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """`count` of these at even steps; they come round again where there are fewer."""
    step = max(1, len(numbers) // count)
    return [numbers[k * step % len(numbers)] for k in range(count)]


def training_images(trainer: Any, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Augmented training batches of the images of these `numbers`, on the device.

    Each has images of one shape (with `rect` they differ), none of them scaled once more by `multi_scale`.
    """
    args = trainer.args
    scaled, args.multi_scale = args.multi_scale, 0.0
    try:
        with untouched(trainer.train_loader.dataset) as dataset:
            for start in range(0, len(numbers), BATCH):
                items = [dataset[k] for k in numbers[start : start + BATCH]]
                items = [item for item in items if item["img"].shape == items[0]["img"].shape]
                yield trainer.preprocess_batch(trainer.train_loader.collate_fn(items))
    finally:
        args.multi_scale = scaled


def alike(batches: list[dict[str, Any]]) -> Tensor:
    """The images of one shape, the first's, of all batches: (B, C, H, W)."""
    shape = batches[0]["img"].shape[1:]
    return torch.cat([batch["img"] for batch in batches if batch["img"].shape[1:] == shape])


def said(found: Mapping[str, Any]) -> str:
    """What was done, in words: from `own["fitted"]`."""
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in found["losses"].items())
    why = f"; loss before training: {losses}" if losses else ""
    if found["start"] == OWN:
        return f"the student's own are the better start{why}"
    r2 = "" if found["r2"] is None else f", R2 {found['r2']:.3f} on average, largest gain {found['gain']:.1f}"
    images = f"{found['images']} augmented views of {found['distinct']} training images"
    return f"{found['start']}, {found['convolutions']} convolutions on {images}{r2}{why}"
