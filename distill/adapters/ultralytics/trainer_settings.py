"""The trainer's own settings (`epochs=25`): parsed as Ultralytics' command line does, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ultralytics.cfg import _handle_deprecation, get_cfg, smart_value
from ultralytics.utils import DEFAULT_CFG_DICT

from distill.errors import InputError
from distill.settings import Settings
from distill.text import nearest, one_line

REFUSED = {
    "mode": "the command decides it",
    "task": "the network decides it",
    "cfg": "use --config",
    "resume": "use --resume",
}
OPTIMIZERS = ("Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD", "MuSGD", "auto")  # of build_optimizer
BEYOND_DEFAULTS = ("augmentations", "save_dir")  # keys that get_cfg takes although no default names them
FEW = 500  # optimizer steps of a run in which every one of them counts
VERBATIM = ("name", "project")  # of parse_key_value_pair: a run may be called 7


def check_ultralytics_settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with values of the right type; text is parsed, deprecated keys become what replaced them.

    Raises InputError for a key that Ultralytics does not have or that is not for the user to set here, and for a value
    of the wrong type or out of range.
    """
    values = {key: _parse(key, value) for key, value in overrides.items()}
    for key in values:
        if key in REFUSED:
            raise InputError(f"{key}= cannot be set here: {REFUSED[key]}")
    try:
        values = _handle_deprecation(values)
    except TypeError as error:
        raise InputError(one_line(error)) from error
    known = (*DEFAULT_CFG_DICT, *BEYOND_DEFAULTS)
    for key in values:  # asked here, as get_cfg would print the whole help
        if key not in known:
            ours = [field.name for field in fields(Settings)]
            raise InputError(f"{key}= is no setting of ours or of Ultralytics'{nearest(key, (*ours, *known))}")
    try:
        checked = vars(get_cfg(DEFAULT_CFG_DICT.copy(), values))
    except (TypeError, ValueError) as error:
        raise InputError(one_line(error)) from error
    for key, check in (("imgsz", _check_imgsz), ("optimizer", _check_optimizer)):  # Ultralytics asks these much later
        if key in values:
            check(checked[key])
    return {key: checked[key] for key in values}


def few_steps(trainer: Any) -> str:
    """What there is to say of a run of few optimizer steps, because gradients are added up; "" for others.

    Ultralytics adds them up to `nbs`=64 images. On a few images a step for each batch instead trained much further on
    one set, and cost accuracy on another, with a teacher and without.
    """
    batch, accumulate, args = trainer.batch_size, trainer.accumulate, trainer.args
    steps = round(trainer.epochs * len(trainer.train_loader) / accumulate)
    if "nbs" in trainer.own["arguments"] or accumulate == 1 or args.time or steps >= FEW:
        return ""
    return (
        f"about {steps} optimizer steps in all, for batches of {batch} are added up to nbs={args.nbs}: "
        f"nbs={batch} makes a step for each batch, which may train further, or too far: try it"
    )


def _parse(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise InputError(f"{key}= has no value")
    return value if key in VERBATIM and value.lower() != "none" else smart_value(value.strip())


def _check_imgsz(value: Any) -> None:
    sizes = list(value) if isinstance(value, (list, tuple)) else [value]
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise InputError(f"imgsz={value} is no image size: a whole number of pixels is, such as imgsz=640")


def _check_optimizer(value: str) -> None:
    if value.lower() not in map(str.lower, OPTIMIZERS):
        raise InputError(f"optimizer={value} is unknown{nearest(value, OPTIMIZERS, len(OPTIMIZERS))}")
