"""Knowledge distillation at the output: the student's class probabilities against the teacher's, position by position.

(Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; for segmentation per pixel, as
the pixel-wise loss of Liu et al. 2019, arXiv 1903.04197.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from distill.errors import InputError
from distill.settings import Settings
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.method import Method, Networks, Planned

COLUMN = "at_logits"
HEAD = "head"  # where a U-Net gives its logits


class LogitsTerm(Term):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over positions, in nats.

    `student` and `teacher` are the layers that give the logits, (B, K, *S) each, on one grid with the same K classes.
    The factor T^2 keeps the gradient's size whatever the temperature T. The figures are the share of positions where
    both networks choose the same class (`agree_logits`), and the mean KL at T = 1 (`dist_logits`).
    """

    name = "logits"
    logged = ("agree_logits",)

    def __init__(self, student: str, teacher: str, temperature: float = 2.0) -> None:
        self.student, self.teacher = student, teacher
        self.at: tuple[str, ...] = (student,)
        self.columns = {COLUMN: "class scores"}
        self.temperature = temperature

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (self.student,), (self.teacher,)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        mine, theirs = student.features[self.student].float(), teacher.features[self.teacher].float()
        loss = divergence(mine, theirs, self.temperature)
        with torch.no_grad():
            agree = (mine.argmax(1) == theirs.argmax(1)).float().mean()
            distance = divergence(mine, theirs, 1.0)
        return {COLUMN: Reading(loss, {"agree_logits": agree, "dist_logits": distance}, distance)}


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of the softened probabilities over dim 1 of (B, K, *S), the mean over the others."""
    mine, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(mine, theirs, reduction="none", log_target=True).sum(1).mean()


class Logits(Method):
    """A U-Net's class scores."""

    name = "logits"
    options = ("logits",)
    weight_option, share_option = "logits_weight", "share"
    kinds = ("unet",)

    def asked(self, settings: Settings) -> bool:
        return bool(settings.logits)

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        if not settings.logits or not settings.teacher:
            return {}, ()
        if list(networks.names) != list(networks.known):
            known, names = ", ".join(networks.known), ", ".join(networks.names)
            raise InputError(f"--logits: the teacher knows {known}; the data has {names}")
        return {"at": HEAD}, ()

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        return [LogitsTerm(planned["at"], planned["at"], settings["logits"])]
