"""Settings of a training run: typed, strict, and the same on the command line, in YAML and in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.text import nearest

FORMS = ("l2", "squared", "mean", "pearson")
FOCUSES = ("none", "boxes", "teacher")
GATES = ("none", "truth", "teacher", "shuffled")
INITS = ("none", "teacher")
LOSSES = ("dice-ce", "dice")
SCHEDULES = ("constant", "cosine")
NO_PAIRS = ("none",)  # --layers none: no energy is compared
RESPONSES = ("bce", "kl", "cwd", "pkd", "boxes")
PRECISIONS = ("auto", "float32", "bfloat16")
DEFAULT_SHARE = 0.2  # of the task's gradient at the tapped layers; more starves the task at the shared clipping of 10


def _option(help: str, default: Any = None, metavar: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar})


@dataclass(frozen=True)
class Settings:
    """Everything that is ours in a run; what belongs to the trainer (`epochs=25`) is kept apart.

    Raises InputError for a value out of range.
    """

    student: str | None = _option(
        "network to train: a .yaml, a .pt to continue from, a pruned .pt; unet:8, attention-unet:8 (8: first width)",
        metavar="FILE",
    )
    data: str | None = _option(
        "data.yaml, a folder, dataset.json (volumes), or 'scenes' or 'volumes' (generated)", metavar="FILE"
    )
    teacher: str | None = _option(
        "trained network to learn from (.pt, .ckpt); without it, plain training", metavar="FILE"
    )
    init: str = _option(
        "the student's first weights: none (drawn from the seed), or teacher (the strongest channels of a larger "
        "network of the student's family)",
        "none",
        "WHAT",
    )
    layers: tuple[str, ...] = _option(
        "what to pair: roles (P3,P4,P5,B3..), numbers (16), dotted names, globs, student:teacher, @2 for a weight; "
        "default: every head level that both have",
        default=(),
        metavar="LIST",
    )
    weight: float | None = _option("fixed weight of the attention loss; default: measured, see --share", metavar="W")
    share: float = _option(
        "gradient of the attention terms at the tapped layers, as a share of the task's", DEFAULT_SHARE, "S"
    )
    p: float = _option("power of the energy maps, sum |F|^p", 2.0, "P")
    form: str = _option("distance: l2 (norm of the difference), squared, or mean (the authors' code)", "l2", "FORM")
    focus: str = _option(
        "where attention counts: none (everywhere alike), boxes (labelled objects, each the same), or teacher (its "
        "confidence)",
        "none",
        "WHERE",
    )
    response: tuple[str, ...] = _option(
        "also transfer a detection head's outputs: class scores by bce, kl, cwd or pkd, and boxes (bce,boxes)",
        default=(),
        metavar="LIST",
    )
    response_weight: float | None = _option(
        "fixed weight of each response loss; default: measured, see --response-share", metavar="W"
    )
    response_share: float = _option(
        "gradient of each response loss at the head's inputs, as a share of the task's", DEFAULT_SHARE, "S"
    )
    temperature: float = _option("softens the scores of --response kl and cwd", 1.0, "T")
    schedule: str = _option("how strongly to distil over the epochs: constant, or cosine (down to --floor)", "constant")
    warmup: float = _option("epochs over which distillation sets in", 0.0, "N")
    floor: float = _option("what --schedule cosine ends with, as a share of the full weight", 0.1, "S")
    stop_with_mosaic: bool = _option("no distillation in the last epochs, those without mosaic (close_mosaic)", False)
    hold: bool = _option("keep measured weights as they were before the first epoch; default: follow slowly", False)
    shuffled: bool = _option("a control: the teacher looks at another image of the batch", False)
    teacher_imgsz: int | None = _option("image size for the teacher; default: the student's", metavar="PIXELS")
    teacher_fraction: float = _option("compare on a random part of each batch (0.5: half; unbiased)", 1.0, "F")
    teacher_precision: str = _option("auto (bfloat16 where equal and faster), float32, or bfloat16", "auto", "TYPE")
    gates: str = _option(
        "what the student's attention gates are supervised by: none, truth (the labels), teacher (its gates, or its "
        "energy), or shuffled (the teacher on another image, a control)",
        "none",
        "WHAT",
    )
    gate_layers: tuple[str, ...] = _option(
        "which gates --gates supervises (G2,G3); default: all of the student's", default=(), metavar="LIST"
    )
    gates_weight: float | None = _option(
        "weight of each gate's loss, which is 1 for the best constant; default: measured; a U-Net's 0.1", metavar="W"
    )
    gated_neck: bool = _option("put attention gates into a detector's neck", False)
    logits: float | None = _option(
        "also transfer a U-Net's class scores, softened by this temperature (2)", metavar="T"
    )
    loss: str | None = _option(
        "a U-Net's own loss: dice-ce (the default; Dice and cross-entropy) or dice", metavar="LOSS"
    )
    heatmaps: tuple[str, ...] = _option(
        "keep the maps of fixed validation images: every N epochs (10), or at these (3,6,10,60)",
        default=(),
        metavar="LIST",
    )
    device: str | None = _option("cpu, 0, 0,1, mps; default: the first GPU, else the CPU", metavar="DEVICE")
    seed: int = _option("seed of the run", 0, "N")
    name: str | None = _option("name of the run folder; default: train, numbered", metavar="NAME")
    project: str | None = _option("folder of run folders; default: ./runs/distill", metavar="DIR")
    trust: bool = _option("run code that a checkpoint or yaml carries: only for files you made or trust", False)

    def __post_init__(self) -> None:
        def need(ok: bool, key: str, wanted: str) -> None:
            if not ok:
                value = getattr(self, key)
                shown = ",".join(value) if isinstance(value, tuple) else repr(value)
                raise InputError(f"{key}={shown} is out of range: {wanted}")

        need(0 < self.p < math.inf, "p", "a number above 0")
        need(self.init in INITS, "init", f"one of {', '.join(INITS)}")
        need(self.form in FORMS, "form", f"one of {', '.join(FORMS)}")
        need(self.focus in FOCUSES, "focus", f"one of {', '.join(FOCUSES)}")
        need(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        scores = [name for name in self.response if name != "boxes"]
        known = set(self.response) <= set(RESPONSES) and len(set(self.response)) == len(self.response)
        need(known and len(scores) <= 1, "response", f"one of {', '.join(RESPONSES[:-1])}, and boxes: bce,boxes")
        weight = self.response_weight
        need(weight is None or 0 < weight < math.inf, "response_weight", "a number above 0")
        need(weight is None or bool(self.response), "response_weight", "without --response it has no effect")
        need(0 < self.response_share < math.inf, "response_share", "a number above 0")
        need(0 < self.temperature < math.inf, "temperature", "a number above 0")
        softened = self.temperature == 1 or bool({"kl", "cwd"} & set(self.response))
        need(softened, "temperature", "it softens --response kl and cwd, which is not asked for")
        need(0 <= self.warmup < math.inf, "warmup", "a number from 0")
        need(0 <= self.floor <= 1, "floor", "from 0 to 1")
        need(self.gates in GATES, "gates", f"one of {', '.join(GATES)}")
        need(self.gates_weight is None or 0 < self.gates_weight < math.inf, "gates_weight", "a number above 0")
        idle = self.gates_weight is not None and self.gates == "none"
        need(not idle, "gates_weight", "without --gates it has no effect")
        need(not self.gate_layers or self.gates != "none", "gate_layers", "without --gates it has no effect")
        need(self.logits is None or 0 < self.logits < math.inf, "logits", "a temperature above 0")
        need(self.loss is None or self.loss in LOSSES, "loss", f"one of {', '.join(LOSSES)}")
        need(self.weight is None or 0 <= self.weight < math.inf, "weight", "a number from 0")
        need(0 < self.share < math.inf, "share", "a number above 0")
        need(0 < self.teacher_fraction <= 1, "teacher_fraction", "above 0, at most 1")
        need(self.teacher_imgsz is None or self.teacher_imgsz >= 32, "teacher_imgsz", "at least 32 pixels")
        need(self.teacher_precision in PRECISIONS, "teacher_precision", f"one of {', '.join(PRECISIONS)}")
        need(all(epoch.isdigit() and int(epoch) > 0 for epoch in self.heatmaps), "heatmaps", "whole numbers from 1")
        need(0 <= self.seed < 2**31, "seed", "a whole number from 0, below 2**31")  # NumPy takes no more than 32 bits

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for YAML and for the trainer's arguments."""
        lists = {key: list(getattr(self, key)) for key, kind in TYPES.items() if kind is tuple}
        return {**asdict(self), **lists}


def due(heatmaps: Sequence[str], epoch: int) -> bool:
    """Are maps kept after this epoch (from 1)? One number means every so many epochs, several mean just these."""
    epochs = [int(text) for text in heatmaps]
    return epoch % epochs[0] == 0 if len(epochs) == 1 else epoch in epochs


TYPES: dict[str, type] = {
    **dict.fromkeys(("student", "data", "teacher", "form", "teacher_precision", "device", "name", "project"), str),
    **dict.fromkeys(("gates", "loss", "focus", "schedule", "init"), str),
    **dict.fromkeys(("weight", "share", "p", "teacher_fraction", "logits", "gates_weight"), float),
    **dict.fromkeys(("response_weight", "response_share", "temperature", "warmup", "floor"), float),
    **dict.fromkeys(("teacher_imgsz", "seed"), int),
    **dict.fromkeys(("gated_neck", "trust", "stop_with_mosaic", "hold", "shuffled"), bool),
    **dict.fromkeys(("layers", "gate_layers", "heatmaps", "response"), tuple),
}
ALIASES = {"model": "student"}  # so that a `yolo train` line works as it is


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings from loosely typed values (text from the command line, lists from YAML).

    Raises InputError for an unknown name (nearest given) or a value of the wrong type.
    """
    names = [f.name for f in fields(Settings)]
    for key in values:
        if key not in names:
            raise InputError(f"unknown setting '{key}'{nearest(key, names)}")
    return replace(Settings(), **{key: _typed(key, value) for key, value in values.items()})


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours and the trainer's, from one flat mapping; `model` counts as `student`, dashes as underscores."""
    names = {f.name for f in fields(Settings)}
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for key, value in values.items():
        name = ALIASES.get(key, key.replace("-", "_"))
        into = ours if name in names else theirs
        if name in into:
            raise InputError(f"'{name}' is given twice: once is enough")
        into[name] = value
    return ours, theirs


def read_config(path: str) -> dict[str, Any]:
    """A YAML file of settings; a bare name such as `yolo11-six-layers` means a file of the package's `configs`.

    Raises InputError when it is missing, not YAML, or not a mapping.
    """
    return read_mapping(find_config(path), f"--config {path}")


def read_mapping(file: Path, what: str) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError, which begins with `what`, for one that is no such thing."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{what}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{what}: must be a mapping of settings, such as 'layers: [P3, P4]'")
    return {str(key): value for key, value in values.items()}


def find_config(path: str) -> Path:
    """The file itself, or the one of that name that comes with the package. Raises InputError when there is none."""
    shipped = shipped_configs()
    for candidate in (Path(path), *(folder / name for folder in shipped for name in (path, f"{path}.yaml"))):
        if candidate.is_file():
            return candidate
    known = [file.stem for folder in shipped for file in folder.glob("*.yaml")]
    raise InputError(f"--config {path}: no such file{nearest(path, known)}")


def shipped_configs() -> list[Path]:
    """The folders of settings that come with the package: inside it where it is installed, beside it in a checkout."""
    here = Path(__file__).parent
    return [folder for folder in (here / "configs", here.parent / "configs") if folder.is_dir()]


def _typed(key: str, value: Any) -> Any:
    wanted = TYPES[key]
    unset = isinstance(value, str) and value.lower() == "none"  # but --layers none is an answer: no pairs
    if value is None or (unset and wanted is not str and key != "layers"):
        return getattr(Settings(), key)
    try:
        if wanted is tuple:
            items = value.split(",") if isinstance(value, str) else value
            items = items if isinstance(items, (list, tuple)) else [items]
            return tuple(str(item).strip() for item in items if str(item).strip())
        if wanted is bool:
            return _boolean(key, value)
        if wanted is str:
            return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        if isinstance(value, bool) or (wanted is int and float(value) != int(float(value))):
            raise ValueError
        return wanted(float(value)) if wanted is int else wanted(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{key}={value!r}: a {'whole number' if wanted is int else 'number'} is needed") from error


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise InputError(f"{key}={value!r}: true or false is needed")
