"""The trainer and the network of each task that can be distilled."""

from __future__ import annotations

from torch import nn
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
from ultralytics.nn import tasks

from distill.adapters.ultralytics.trainers import DistillationMixin


class DistillDetectionTrainer(DistillationMixin, DetectionTrainer):
    """Detection."""


class DistillSegmentationTrainer(DistillationMixin, SegmentationTrainer):
    """Instance segmentation."""


class DistillPoseTrainer(DistillationMixin, PoseTrainer):
    """Key points."""


class DistillOBBTrainer(DistillationMixin, OBBTrainer):
    """Oriented boxes."""


class DistillSemanticTrainer(DistillationMixin, SemanticSegmentationTrainer):
    """Semantic segmentation."""


class DistillClassificationTrainer(DistillationMixin, ClassificationTrainer):
    """Image classification."""

    per_image = False


class DistillRTDETRTrainer(DistillationMixin, RTDETRTrainer):
    """Detection with RT-DETR."""

    per_image = False


TRAINERS: dict[tuple[str, str], type] = {  # by family and task
    ("yolo", "detect"): DistillDetectionTrainer,
    ("yolo", "segment"): DistillSegmentationTrainer,
    ("yolo", "pose"): DistillPoseTrainer,
    ("yolo", "obb"): DistillOBBTrainer,
    ("yolo", "semantic"): DistillSemanticTrainer,
    ("yolo", "classify"): DistillClassificationTrainer,
    ("rtdetr", "detect"): DistillRTDETRTrainer,
}

MODELS: dict[tuple[str, str], type[nn.Module]] = {  # by family and task
    ("yolo", "detect"): tasks.DetectionModel,
    ("yolo", "segment"): tasks.SegmentationModel,
    ("yolo", "pose"): tasks.PoseModel,
    ("yolo", "obb"): tasks.OBBModel,
    ("yolo", "semantic"): tasks.SemanticSegmentationModel,
    ("yolo", "classify"): tasks.ClassificationModel,
    ("rtdetr", "detect"): tasks.RTDETRDetectionModel,
}
