"""From what a user names to the adapter that knows it, imported only then."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from distill.errors import InputError
from distill.settings import Settings

UNET = re.compile(r"(attention-)?unet(:.*)?")


def adapter_for(settings: Settings) -> ModuleType:
    """The adapter that trains this student. Raises InputError where its framework is not installed."""
    return segment_adapter() if settings.student and is_unet(settings.student) else ultralytics_adapter(settings.trust)


def is_unet(network: str) -> bool:
    """Does a name, a checkpoint or a description mean a U-Net? `unet:8`, a .ckpt, a YAML with a `unet:` entry."""
    if network.lower().endswith((".yaml", ".yml")):
        try:
            return re.search(r"^unet\s*:", Path(network).read_text(encoding="utf-8"), re.MULTILINE) is not None
        except (OSError, UnicodeDecodeError):
            return False
    return network.lower().endswith(".ckpt") or UNET.fullmatch(network) is not None


def segment_adapter() -> ModuleType:
    """The adapter for U-Nets. Raises InputError, naming the extra, when MONAI, Lightning or nibabel is missing."""
    from distill.adapters.segment import environment

    environment.prepare()
    try:
        from distill.adapters.segment import door
    except ImportError as error:
        raise InputError(f"a package that U-Nets need lacks a piece ({error}): {environment.REMEDY}") from error
    return door


def ultralytics_adapter(trust: bool = False) -> ModuleType:
    """The Ultralytics adapter, its environment prepared before the framework is imported.

    Raises InputError when ultralytics is missing or of a version that was not tested.
    """
    from distill.adapters.ultralytics import environment

    environment.prepare(trust)
    try:
        from distill.adapters.ultralytics import door
    except ImportError as error:
        raise InputError(f"ultralytics lacks a piece that is needed ({error}): {environment.NEEDED}") from error
    return door
