"""Generated data: small, deterministic sets that need no download (`--data scenes`, `--data volumes`).

One folder of pictures serves Ultralytics (detect, segment, semantic) and a U-Net (image and mask); the volumes are
NIfTI files beside a dataset.json, as those of the Medical Segmentation Decathlon.
"""

from distill.scenes.folders import named_data, scenes_data, volumes_data, write_scenes, write_volumes
from distill.scenes.shapes import CLASSES, SPLITS, Scene, make_scene
from distill.scenes.solids import KINDS, Volume, make_volume

__all__ = [
    "CLASSES",
    "KINDS",
    "SPLITS",
    "Scene",
    "Volume",
    "make_scene",
    "make_volume",
    "named_data",
    "scenes_data",
    "volumes_data",
    "write_scenes",
    "write_volumes",
]
