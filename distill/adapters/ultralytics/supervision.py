"""What guides the gates in a student's neck: the teacher's attention at the same level, or the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.ranges import BOXLESS, NO_PAIRS, USUAL
from distill.settings import Settings


def check_gates(settings: Settings, gated: bool, task: str) -> None:
    """Raise InputError where `--gates` asks for what cannot be, before anything is measured."""
    if settings.gates == "none":
        return
    asked = f"--gates {settings.gates}"
    if not gated:
        raise InputError(f"{asked}: the student has no gates: add --gated-neck, or name a gated student")
    if settings.gates == "truth":
        if task in BOXLESS:
            raise InputError(f"{asked}: the gates follow labelled boxes, which {task} does not have")
    elif not settings.teacher:
        raise InputError(f"{asked}: there is nothing to follow without --teacher; the labels are --gates truth")


def check_pairs(
    settings: Settings, pairs: Sequence[Pair], gates: Sequence[Pair], features: Sequence[Pair] = ()
) -> None:
    """Raise InputError if a gate is guided twice, or a teacher has nothing to teach, or there is nothing to draw."""
    both = {pair.student for pair in pairs} & {pair.student for pair in gates}
    if both:
        raise InputError(f"--layers and --gates both guide {', '.join(sorted(both))}: once is enough")
    teaches = pairs or features or settings.response or any(pair.teacher for pair in gates)
    if not teaches and settings.init == "none":
        raise InputError(
            "--layers none leaves the teacher nothing to teach: add --response bce, --gates teacher, or --init fit"
        )
    if settings.heatmaps and not pairs:
        raise InputError("--heatmaps keeps the maps of paired layers, and --layers none pairs none: leave one out")


def check_shuffled(trainer: Any) -> None:
    """Raise InputError if a shuffled teacher would meet a batch of one image, which has no other to look at."""
    own = trainer.own
    asked = "--gates shuffled" if own.get("gates") == "shuffled" else "--shuffled" if own.get("shuffled") else None
    if asked is None:
        return
    loader, fraction = trainer.train_loader, own["teacher_fraction"]
    images = -(-len(loader.dataset) // max(trainer.world_size, 1))
    full = min(loader.batch_size or images, images)
    if min(round(fraction * size) for size in (full, images % full or full)) < 2:
        raise InputError(
            f"{asked} compares with another image of the batch: {images} images in batches of {full} "
            f"(fraction {fraction:g}) leave one alone: take another batch="
        )


def teaches(settings: Settings) -> bool:
    """Do these settings ask the teacher for anything but the student's first weights?"""
    asked = settings.layers != NO_PAIRS or bool(settings.named_features) or bool(settings.response)
    return asked or settings.gates not in ("none", "truth")


def on_trial(settings: Settings) -> bool:
    """Are features to be tried, if the student knows something: beside the usual layers' attention, and outputs?"""
    beside = not settings.layers and bool(settings.response)
    return settings.features == USUAL and beside and settings.teacher is not None


def check_trial(settings: Settings, tried: bool) -> None:
    """Raise InputError for options of features that would have no effect, for none are tried."""
    if tried or settings.features != USUAL:
        return
    for name in ("features_share", "features_weight"):
        if getattr(settings, name) != getattr(Settings, name):
            raise InputError(
                f"--{name.replace('_', '-')} has no effect: features are tried for a trained or fitted student, beside "
                f"the usual --layers and --response: name some, as --features P3,P4,P5"
            )


def supervised(own: dict[str, Any]) -> bool:
    """Does a run of these settings have anything beside the task's own loss?"""
    return any(own.get(key) for key in ("pairs", "feature_pairs", "outputs", "gate_pairs"))


def taught(own: dict[str, Any]) -> bool:
    """Is the teacher asked during training? It is not where it only gives the student its first weights."""
    shown = any(own.get(key) for key in ("pairs", "feature_pairs", "outputs"))
    return shown or any(pair["teacher"] for pair in own.get("gate_pairs", ()))
