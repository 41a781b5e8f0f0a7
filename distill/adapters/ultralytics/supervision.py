"""Do the settings of a run, taken together, teach anything; and does each of them have an effect?"""

from __future__ import annotations

from typing import Any

from distill.errors import InputError
from distill.settings import Settings
from distill.terms.methods import asks_teacher, check_terms, fixed_of, terms_of
from distill.terms.registry import Plans


def check_plans(settings: Settings, plans: Plans) -> None:
    """Raise InputError if a layer is guided twice, the teacher has nothing to teach, or an option has no effect."""
    check_terms(plans, settings.as_dict())
    if settings.teacher and settings.init == "none" and not asks_teacher(plans):
        raise InputError(
            "--layers none leaves the teacher nothing to teach: add --response bce, --gates teacher, or --init fit"
        )
    if settings.heatmaps and settings.teacher and not any(term.maps for term in terms_of(plans, settings.as_dict())):
        raise InputError("--heatmaps keeps the maps of paired layers, and --layers none pairs none: leave one out")
    fixed = fixed_of(plans, settings.as_dict())
    if settings.hold and fixed and all(weight is not None for weight in fixed.values()):
        raise InputError("--hold has no effect: all weights are fixed")


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


def supervised(own: dict[str, Any]) -> bool:
    """Does a run of these settings have anything beside the task's own loss?"""
    return any(own.get("methods", {}).values())


def taught(own: dict[str, Any]) -> bool:
    """Is the teacher asked during training? It is not where it only gives the student its first weights."""
    return asks_teacher(own.get("methods", {}))
