"""What the rest of the package uses of this adapter; import it through `distill.loading`, which prepares for it."""

from distill.adapters.segment.data import find_images
from distill.adapters.segment.exporting import export_onnx
from distill.adapters.segment.plan import Plan, plan
from distill.adapters.segment.predicting import predict, write_mask
from distill.adapters.segment.runs import doctor, resume, train

__all__ = ["Plan", "doctor", "export_onnx", "find_images", "plan", "predict", "resume", "train", "write_mask"]
