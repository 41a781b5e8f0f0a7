"""How each family's networks take their pictures."""

from __future__ import annotations

from collections.abc import Sequence

from distill.pictures.framing import Framing, centre_crop, letterbox, stretch


def framing(task: str, families: Sequence[str], square: bool = False) -> Framing:
    """How pictures become the input of networks of these families: one way for all of them.

    RT-DETR reads squares: stretched pictures where all networks are RT-DETR, on grey beside a YOLO. `square` asks for
    the same of any network, so that all inputs have one shape.
    """
    if task == "classify":
        return centre_crop
    if all(family == "rtdetr" for family in families):
        return stretch
    filled = square or "rtdetr" in families
    return lambda pixels, size, stride: letterbox(pixels, size, stride, filled)
