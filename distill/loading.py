"""From what a user names to the adapter that knows it, imported only then."""

from __future__ import annotations

from types import ModuleType

from distill.errors import InputError


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
