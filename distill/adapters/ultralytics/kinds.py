"""Which networks can be distilled, told from the class of the head and of the whole, never from a file's name."""

from __future__ import annotations

from distill.errors import InputError

# Class name of a head, or of a class it is derived from -> task, family. Names, as not every 8.4 has every class.
KINDS = {
    "Segment": ("segment", "yolo"),
    "Pose": ("pose", "yolo"),
    "OBB": ("obb", "yolo"),
    "SemanticSegment": ("semantic", "yolo"),
    "Classify": ("classify", "yolo"),
    "RTDETRDecoder": ("detect", "rtdetr"),
    "Detect": ("detect", "yolo"),
}
REFUSED = {  # asked first, as several of these are derived from classes above
    "WorldDetect": "a YOLO-World network",
    "WorldModel": "a YOLO-World network",
    "YOLOEDetect": "a YOLOE network",
    "YOLOEModel": "a YOLOE network",
    "Depth": "a depth network",
    "DepthModel": "a depth network",
    "DistillationModel": "an unfinished run of Ultralytics' own distillation",
}
SUPPORTED = "detect, segment, pose, obb, semantic, classify and RT-DETR can be distilled"


def kind_of(head: type, where: str, whole: type = object) -> tuple[str, str]:
    """Task and family ('yolo' or 'rtdetr') of a network of class `whole` that ends in `head`.

    Raises InputError for what cannot be distilled; `where` says what the user gave.
    """
    lineage = [c.__name__ for c in (*whole.__mro__, *head.__mro__)]
    if refused := next((REFUSED[name] for name in lineage if name in REFUSED), None):
        raise InputError(f"{where}: {refused}; {SUPPORTED}")
    if found := next((KINDS[name] for name in lineage if name in KINDS), None):
        return found
    raise InputError(f"{where}: a network that ends in {head.__name__}; {SUPPORTED}")
