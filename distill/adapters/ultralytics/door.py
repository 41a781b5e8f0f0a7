"""What the rest of the package uses of this adapter; import it through `distill.loading`, which prepares for it."""

from distill.adapters.ultralytics.anatomy import build_teacher, layers_of
from distill.adapters.ultralytics.inputs import read_checkpoint
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.runs import doctor, resume, train

__all__ = ["Plan", "build_teacher", "doctor", "layers_of", "plan", "read_checkpoint", "resume", "train"]
