"""The door: whatever a user hands over for an Ultralytics run is read through one of these, before anything else.

Each raises InputError in one line that names the argument, and runs nothing that a file carries unless trusted.
"""

from __future__ import annotations

from distill.adapters.ultralytics.checkpoints import Checkpoint, read_checkpoint
from distill.adapters.ultralytics.data import read_data
from distill.adapters.ultralytics.model_yaml import ModelYaml, read_model_yaml
from distill.adapters.ultralytics.trainer_settings import check_ultralytics_settings

__all__ = [
    "Checkpoint",
    "ModelYaml",
    "check_ultralytics_settings",
    "read_checkpoint",
    "read_data",
    "read_model_yaml",
]
