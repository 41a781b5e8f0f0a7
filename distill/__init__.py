"""Teach a small detector where a large one looks, and see what was learned.

>>> import distill
>>> result = distill.train(teacher="yolo11s.pt", student="yolo11n.yaml", data="voc.yaml", epochs=100)
>>> print(result)

Public names are imported when they are first used, so that `import distill` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Analysis": "distill.jobs.layers.analysis",
    "AttentionGate": "distill.attention.gates",
    "AttentionMap": "distill.attention.maps",
    "AttentionTerm": "distill.terms.attention",
    "Batch": "distill.terms.base",
    "BenchResult": "distill.jobs.benching.benches",
    "Check": "distill.proof",
    "Comparison": "distill.jobs.seeing.comparison",
    "DistillError": "distill.errors",
    "Distiller": "distill.distiller",
    "GateTerm": "distill.terms.gates",
    "InputError": "distill.errors",
    "LayerInfo": "distill.attention.layers",
    "LogitsTerm": "distill.terms.logits",
    "Pair": "distill.attention.pairs",
    "PairedTerm": "distill.terms.paired",
    "ProofFailed": "distill.errors",
    "SilentTapError": "distill.errors",
    "Taps": "distill.attention.taps",
    "Teacher": "distill.teacher",
    "TrainResult": "distill.jobs.summary",
    "UNet": "distill.networks.unet",
    "View": "distill.terms.base",
    "analyse": "distill.jobs.layers.analysis",
    "attention_map": "distill.attention.maps",
    "bench": "distill.jobs.benching.benches",
    "compare": "distill.jobs.seeing.comparing",
    "describe": "distill.attention.layers",
    "doctor": "distill.jobs.checks",
    "energy": "distill.attention.maps",
    "make_scene": "distill.scenes",
    "make_volume": "distill.scenes",
    "pair_layers": "distill.attention.pairs",
    "predict": "distill.jobs.prediction",
    "resolve": "distill.attention.layers",
    "resume": "distill.jobs.training",
    "train": "distill.jobs.training",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'distill' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
