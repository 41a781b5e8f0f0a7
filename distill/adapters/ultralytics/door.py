"""What the rest of the package uses of this adapter; import it through `distill.loading`, which prepares for it."""

from distill.adapters.ultralytics.anatomy import build_teacher, layers_of
from distill.adapters.ultralytics.devices import checked_device
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.framings import framing
from distill.adapters.ultralytics.inputs import read_checkpoint, read_data
from distill.adapters.ultralytics.labels import images_of, labels_of
from distill.adapters.ultralytics.looking import Looker, open_lookers
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.runs import doctor, resume, train

__all__ = [
    "Looker",
    "Plan",
    "build_teacher",
    "checked_device",
    "doctor",
    "framing",
    "images_of",
    "labels_of",
    "layers_of",
    "open_lookers",
    "plan",
    "quiet",
    "read_checkpoint",
    "read_data",
    "resume",
    "train",
]
