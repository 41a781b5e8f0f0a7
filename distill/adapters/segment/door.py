"""What the rest of the package uses of this adapter; import it through `distill.loading`, which prepares for it."""

from distill.adapters.segment.alphas import write_alphas
from distill.adapters.segment.data import read_data
from distill.adapters.segment.exporting import export_onnx
from distill.adapters.segment.files import find_images, stem
from distill.adapters.segment.looking import Looker, choose_cases, open_lookers
from distill.adapters.segment.plan import Plan, plan
from distill.adapters.segment.predicting import predict, write_mask
from distill.adapters.segment.runs import doctor, resume, train
from distill.adapters.segment.subjects import cut_out, planes, read_subject, window

__all__ = [
    "Looker",
    "Plan",
    "choose_cases",
    "cut_out",
    "doctor",
    "export_onnx",
    "find_images",
    "open_lookers",
    "plan",
    "planes",
    "predict",
    "read_data",
    "read_subject",
    "resume",
    "stem",
    "train",
    "window",
    "write_alphas",
    "write_mask",
]
