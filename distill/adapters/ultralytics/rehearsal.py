"""What is measured on copies, before the first epoch and after the last: nothing here changes the run.

Every function leaves the trainer, its model, its data sets and the random generators as they were; callers hold
`same_randomness` around them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.models.rtdetr.val import RTDETRValidator
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules.head import RTDETRDecoder
from ultralytics.utils import callbacks
from ultralytics.utils.torch_utils import autocast, get_flops, unwrap_model

from distill.adapters.ultralytics.anatomy import stride_of
from distill.adapters.ultralytics.cpu import in_precision
from distill.adapters.ultralytics.wrapper import as_batch
from distill.distiller import Distiller, Step
from distill.proof import Pass

PROOF_IMAGES = 8  # a batch for the proof and the weight: enough for BatchNorm, seconds on a CPU
PROOF_BATCHES = 4  # the gradients of an untrained student scatter from batch to batch
COMPARED_IMAGES = 64  # validation images behind the cosines and distances of the final table
TIMED_STEPS = 3

SCORES = {  # the figure that people judge each task by
    "segment": "metrics/mAP50-95(M)",
    "pose": "metrics/mAP50-95(P)",
    "semantic": "metrics/mIoU",
    "classify": "metrics/accuracy_top1",
}


def score_name(task: str) -> str:
    """The key of a task's main figure in Ultralytics' metrics."""
    return SCORES.get(task, "metrics/mAP50-95(B)")


@contextmanager
def untouched(dataset: Any) -> Iterator[Any]:
    """A data set whose buffers (mosaic's, the image cache) are put back on exit."""
    kept = {name: value for name, value in vars(dataset).items() if isinstance(value, (list, dict))}
    vars(dataset).update({name: copy(value) for name, value in kept.items()})
    try:
        yield dataset
    finally:
        vars(dataset).update(kept)


def sample(loader: Any, count: int, size: int) -> Iterator[dict[str, Any]]:
    """Up to `count` batches of `size` images, evenly spread over the loader's data set, collated as the loader does.

    Each lies within one batch of the loader: with `rect` only those images share a shape. No image is in two of them.
    """
    with untouched(loader.dataset) as dataset:
        whole = min(loader.batch_size or size, len(dataset))
        size, batches = min(size, whole), len(dataset) // whole
        each = min(-(-count // batches), whole // size)  # from one batch of the loader
        count = min(count, batches * each)
        for i in range(count):
            batch, place = divmod(i * batches * each // count, each)
            start = batch * whole + place * size
            yield loader.collate_fn([dataset[k] for k in range(start, start + size)])


def student_of(trainer: Any) -> Any:
    """The plain student, whatever stands around it: ours, DDP's, or Ultralytics' own distillation."""
    model: Any = unwrap_model(trainer.model)
    return model.student_model if isinstance(model, DistillationModel) else model


def student_copy(trainer: Any) -> nn.Module:
    """The plain student as the next training step would find it: train mode, frozen BatchNorms in eval."""
    student: nn.Module = deepcopy(student_of(trainer)).train()
    for name, module in student.named_modules():
        if isinstance(module, nn.BatchNorm2d) and any(frozen in name for frozen in trainer.freeze_layer_names):
            module.eval()
    return student


def training_batches(trainer: Any) -> list[dict[str, Any]]:
    """A few augmented training batches, on the device."""
    loader = trainer.train_loader
    return [trainer.preprocess_batch(batch) for batch in sample(loader, PROOF_BATCHES, PROOF_IMAGES)]


def passes(batches: list[dict[str, Any]], distiller: Distiller, per_image: bool) -> list[Pass]:
    """For each batch, what the proof runs: the student's own loss per image beside the distiller's step."""

    def make(number: int, batch: dict[str, Any]) -> Pass:
        def run(student: nn.Module) -> tuple[Tensor, Step]:
            data = dict(batch)
            with distiller.watch(student, as_batch(data, step=number)) as step:
                loss, _ = student(data)
            return loss.sum() / (data["img"].shape[0] if per_image else 1), step

        return run

    return [make(number, batch) for number, batch in enumerate(batches)]


def step_cost(trainer: Any, batch: dict[str, Any], wrapped: nn.Module) -> float:
    """Time of a distilling step over a plain one, in the run's precision, not compiled; the ratio of the best times."""
    best = {"plain": math.inf, "ours": math.inf}
    runs = {"plain": student_copy(trainer), "ours": wrapped}
    runs = {name: in_precision(model, trainer.own) for name, model in runs.items()}
    for _ in range(TIMED_STEPS):
        for name, model in runs.items():
            _wait(trainer.device)
            start = time.perf_counter()
            with autocast(torch.bfloat16 if trainer.args.amp == "bf16" else trainer.amp, device=trainer.device.type):
                loss = model(dict(batch))[0].sum()
            loss.backward()
            _wait(trainer.device)
            best[name] = min(best[name], time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
    return best["ours"] / best["plain"]


def validate(trainer: Any, module: Any, imgsz: int | None = None) -> dict[str, float]:
    """Ultralytics' own metrics, its `fitness` among them, of a copy of `module` on the validation set.

    At `imgsz` where it is not the trainer's.

    On every rank at once: Ultralytics gathers the statistics. Ranks above 0 get an empty mapping.
    """
    validator = _validator(trainer, module)
    validator.args.plots = validator.args.save_json = validator.args.save_txt = validator.args.compile = False
    validator.args.quantize = 16 if trainer.device.type != "cpu" and trainer.amp else None  # as during training
    validator.callbacks = callbacks.get_default_callbacks()
    imgsz = imgsz or trainer.args.imgsz
    if imgsz != trainer.args.imgsz or stride_of(module) > trainer.stride:  # a loader of its own, of sides that fit it
        validator.dataloader, validator.args.imgsz = None, imgsz
    results = validator(model=deepcopy(module).eval())
    return {key: float(value) for key, value in (results or {}).items()}


def _validator(trainer: Any, module: Any) -> Any:
    """The trainer's validator, or its family's: YOLO and RT-DETR prepare images and read boxes differently."""
    validator = trainer.get_validator()
    rtdetr = isinstance(module.model[-1], RTDETRDecoder)
    if trainer.args.task != "detect" or isinstance(validator, RTDETRValidator) == rtdetr:
        return validator
    kind = RTDETRValidator if rtdetr else DetectionValidator
    return kind(save_dir=validator.save_dir, args=validator.args)  # without a loader it makes one that fits


@torch.no_grad()
def compare(trainer: Any, module: Any, distiller: Distiller) -> dict[str, float]:
    """The figures of all terms on validation images, with `module` in eval mode: means over images.

    `distiller` compares whole batches.
    """
    validator = trainer.get_validator()
    validator.device = trainer.device
    student = deepcopy(module).float().eval().to(trainer.device)
    totals: dict[str, float] = {}
    images = 0
    for number, raw in enumerate(sample(trainer.test_loader, COMPARED_IMAGES // PROOF_IMAGES, PROOF_IMAGES)):
        batch = validator.preprocess(raw)
        batch["img"] = batch["img"].float()
        batch = without_border(batch, trainer.stride)
        with distiller.watch(student, as_batch(batch, step=number)) as step:  # other channels and positions on each
            student(batch["img"])
        images += (size := batch["img"].shape[0])
        for name, value in step.figures().items():
            totals[name] = totals.get(name, 0.0) + value.item() * size
    return {name: value / images for name, value in totals.items()}


def without_border(batch: dict[str, Any], stride: int) -> dict[str, Any]:
    """The batch less what Ultralytics' validation adds around its images: at least half a `stride` of grey.

    No training image has that border, and two networks answer to it differently: the P5 maps of one trained student
    agreed with its teacher's at a cosine of 0.970 with it and 0.998 without. Sides stay multiples of the stride.
    """
    if "ratio_pad" not in batch:  # a task whose images are not letterboxed
        return batch
    images: Tensor = batch["img"]
    sides = images.shape[2:]
    added = [min(round(padding[axis]) for _, padding in batch["ratio_pad"]) for axis in (1, 0)]  # top, left
    kept = [math.ceil((side - 2 * pad) / stride) * stride for side, pad in zip(sides, added, strict=True)]
    first = [(side - keep) // 2 for side, keep in zip(sides, kept, strict=True)]
    images = images[:, :, first[0] : first[0] + kept[0], first[1] : first[1] + kept[1]]
    batch = {**batch, "img": images.contiguous()}
    if "bboxes" in batch:  # shares of the sides, x and width first
        boxes = batch["bboxes"].clone()
        for axis, (side, keep, start) in enumerate(zip(sides[::-1], kept[::-1], first[::-1], strict=True)):
            boxes[:, axis] = (boxes[:, axis] * side - start) / keep
            boxes[:, axis + 2] *= side / keep
        batch["bboxes"] = boxes
    return batch


def profile(module: Any, imgsz: int, repeats: int = 5) -> dict[str, float]:
    """Parameters, GFLOPs for one image, and the median time of a forward pass on the CPU (batch 1, folded), in ms."""
    network = deepcopy(module).float().cpu().eval()
    parameters = sum(p.numel() for p in network.parameters())
    gflops = get_flops(network, imgsz)
    folded = network.fuse(verbose=False)
    image = torch.zeros(1, int(network.yaml.get("channels", 3)), imgsz, imgsz)
    seconds = []
    with torch.no_grad():
        folded(image)
        for _ in range(repeats):
            start = time.perf_counter()
            folded(image)
            seconds.append(time.perf_counter() - start)
    return {"parameters": parameters, "gflops": gflops, "cpu_ms": 1e3 * sorted(seconds)[repeats // 2]}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
