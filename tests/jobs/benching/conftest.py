"""Real benches run on the adapter's tiny data and networks."""

from __future__ import annotations

from ...adapters.conftest import checkpoint, scenes, student, teacher  # noqa: F401
