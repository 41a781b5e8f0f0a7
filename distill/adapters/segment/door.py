"""What the rest of the package uses of this adapter; import it through `distill.loading`, which prepares for it."""

from distill.adapters.segment.plan import Plan, plan
from distill.adapters.segment.runs import doctor, resume, train

__all__ = ["Plan", "doctor", "plan", "resume", "train"]
