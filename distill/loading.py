"""From what a user names to the adapter that knows it, imported only then."""

from __future__ import annotations

from types import ModuleType


def ultralytics_adapter(trust: bool = False) -> ModuleType:
    """The Ultralytics adapter, its environment prepared before the framework is imported.

    Raises InputError when ultralytics is missing or of a version that was not tested.
    """
    from distill.adapters.ultralytics import environment

    environment.prepare(trust)
    from distill.adapters.ultralytics import door

    return door
