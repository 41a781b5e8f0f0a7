"""Gates with a teacher: a student's coefficients against the labels, another gate's, or another network's attention.

The student's alpha is an absolute value in (0, 1), so it is held against a target in [0, 1], and the loss is the
normalised root mean square error, with the means over positions and images and the variance within each image:

    L = sqrt(mean (alpha_i - t_i)^2 / mean var_i(t))

0 where they are equal, and 1 at least for any constant. So the trivial answer, an alpha that is the same everywhere, is
never better than 1, however little of the image the target covers, which a plain squared or absolute error does not
say; down to a variance of `LEAST_VARIANCE`, a foreground of 1 %. Below that the denominator stays what it is there, and
the trivial answer gets cheaper (0.45 at 0.2 %). Supervision by the pooled labels is that of Wang et al. 2019 (VS_Seg,
arXiv 1906.03906), with another distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.attention.maps import AttentionMap
from distill.attention.pairs import Pair, gate_pairs
from distill.errors import InputError
from distill.settings import Settings
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.focus import covered
from distill.terms.method import Figures, Method, Networks, Planned, read_pairs
from distill.text import Table, figure

LEAST_VARIANCE = 0.01  # of the targets of a batch, in the denominator: they may all be almost empty
NO_GATES = "take --student attention-unet, or a detector's --gated-neck"
FLAT = 1e-4  # standard deviation of alpha below which its correlation with anything is that of rounding
LOW, HIGH = 0.01, 0.99  # quantiles of an energy map that become 0 and 1


class GateTerm(Term):
    """The distance of alpha from what guides it, as `normalised_error`, each gate a loss of its own.

    `pairs` name a student's gate (its module `alpha`) and what guides it; their `kind` is that of the guide: "gate" for
    a teacher's alpha, "energy" for a layer's attention, brought to [0, 1] by `relative`. `target` is "teacher"; or
    "shuffled", the teacher on the next image of the batch, the control that tells whether content is transferred; or
    "truth", the labels: the share of foreground in each cell, for which no teacher is needed (and `pair.teacher` means
    nothing). Everything is compared on alpha's own grid.

    The figures are alpha's correlation with the target (`r_`, over images where the target varies), its standard
    deviation over positions (`std_`), the root mean square of the difference (`dist_`) and the target's standard
    deviation (`spread_`), means over the batch.

    Raises ValueError for an unknown target, InputError where the labels are missing or a batch of one is shuffled.
    """

    name = "gates"

    def __init__(self, pairs: Sequence[Pair], target: str = "teacher", p: float = 2.0) -> None:
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
        self.pairs = self.alphas = tuple(pairs)
        self.at = tuple(pair.student for pair in self.pairs)
        self.columns = {pair.column: f"pair {pair.name}" for pair in self.pairs}
        self.logged = tuple(f"{figure}_{pair.name}" for pair in self.pairs for figure in ("r", "std"))
        self.target = target
        self.p = p

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        guides = () if self.target == "truth" else tuple(pair.teacher for pair in self.pairs)
        return tuple(pair.student for pair in self.pairs), guides

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        readings = {}
        for pair in self.pairs:
            alpha = AttentionMap.read(student.features[pair.student], pair.student, "gate").values  # (B, *s)
            target = TARGETS[self.target](self, pair, teacher, batch, alpha.shape[1:])
            a, t = alpha.flatten(1), target.to(alpha).flatten(1)  # (B, prod s)
            loss = pair.weight * normalised_error(a, t)
            figures = _figures(pair.name, a.detach(), t)
            apart, spread = figures[f"dist_{pair.name}"], figures[f"spread_{pair.name}"]
            readings[pair.column] = Reading(loss, figures, apart, spread)
        return readings

    def _teachers(self, pair: Pair, teacher: View, _batch: Batch, size: torch.Size) -> Tensor:
        found = AttentionMap.read(teacher.features[pair.teacher], pair.teacher, pair.kind, self.p).resize(size)
        return found.values if pair.kind == "gate" else relative(found.values)

    def _anothers(self, pair: Pair, teacher: View, batch: Batch, size: torch.Size) -> Tensor:
        if len(batch.images) < 2:
            raise InputError("--gates shuffled compares with another image: it needs batches of two or more")
        return self._teachers(pair, teacher, batch, size).roll(1, dims=0)

    def _labels(self, _pair: Pair, _teacher: View, batch: Batch, size: torch.Size) -> Tensor:
        if batch.masks is not None:
            foreground = AttentionMap((batch.masks > 0).float(), "labels", "gate")
            return foreground.resize(size).values
        if batch.boxes is not None and batch.box_image is not None:
            return covered(batch.boxes, batch.box_image, len(batch.images), size)
        raise InputError("--gates truth needs labels of where things are, masks or boxes: this task has none")


TARGETS: dict[str, Callable[[GateTerm, Pair, View, Batch, torch.Size], Tensor]] = {
    "teacher": GateTerm._teachers,
    "shuffled": GateTerm._anothers,
    "truth": GateTerm._labels,
}


def normalised_error(alpha: Tensor, target: Tensor) -> Tensor:
    """The root mean square error over the target's standard deviation: (B, N), (B, N) -> scalar; L^2 is 1 - R^2.

    The variance is that within the images, the mean over the batch: by their own, images with hardly any target would
    drown the others. It counts as `LEAST_VARIANCE` at least. Equal maps give 0 with gradient 0.
    """
    variance = target.var(1, correction=0).mean().clamp(min=LEAST_VARIANCE)
    return torch.linalg.vector_norm(alpha - target) / (variance * target.numel()).sqrt()


def relative(energy: Tensor) -> Tensor:
    """Each sample of an energy map (B, *S) within its own range: 0 at its 1 % quantile, 1 at its 99 %, clipped."""
    flat = energy.flatten(1)
    low, high = (torch.quantile(flat, q, dim=1, keepdim=True) for q in (LOW, HIGH))
    span = torch.where(high > low, high - low, 1.0)
    return ((flat - low) / span).clamp(0, 1).view_as(energy)


@torch.no_grad()
def _figures(name: str, alpha: Tensor, target: Tensor) -> dict[str, Tensor]:
    a, t = (values - values.mean(1, keepdim=True) for values in (alpha, target))
    varied = target.amax(1) > target.amin(1)  # an image without foreground has nothing to correlate with
    return {
        f"r_{name}": (F.cosine_similarity(a, t, dim=1) * varied).sum() / varied.sum().clamp(min=1),
        f"std_{name}": alpha.std(1, correction=0).mean(),
        f"dist_{name}": (alpha - target).square().mean(1).sqrt().mean(),
        f"spread_{name}": target.std(1, correction=0).mean(),
    }


class Gates(Method):
    """A student's attention gates, guided by the labels, by a teacher's gates, or by its energy."""

    name = "gates"
    options = ("gates", "gate_layers", "gates_weight")
    weight_option, share_option = "gates_weight", "share"

    def asked(self, settings: Settings) -> bool:
        return settings.gates not in ("none", "truth")

    def idle(self, settings: Settings) -> Sequence[str]:
        return []  # `plan` says what is missing

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        if settings.gates == "none":
            return {}, ()
        asked = f"--gates {settings.gates}"
        if not networks.gated:
            raise InputError(f"{asked}: the student has no gates: {NO_GATES}")
        if settings.gates == "truth" and not networks.boxes:
            raise InputError(f"{asked}: the gates follow labelled boxes, which {networks.task} does not have")
        if settings.gates != "truth" and not settings.teacher:
            raise InputError(f"{asked} without --teacher: name a teacher, or take --gates truth, the labels")
        pairs = gate_pairs(settings.gates, *networks.layers, settings.gate_layers)
        return {"by": settings.gates, "pairs": [asdict(pair) for pair in pairs]}, ()

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        target = "teacher" if audit and planned["by"] == "shuffled" else planned["by"]
        return [GateTerm(read_pairs(planned), target, settings["p"])]

    def asks_teacher(self, planned: Planned) -> bool:
        return bool(planned["by"] != "truth")

    def rows(self, planned: Planned) -> list[tuple[str, Pair]]:
        return [(pair.column, pair) for pair in read_pairs(planned)]

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        rows: list[tuple[str, ...]] = [
            ("gate", "student", "guide", "correlation before", "after", "deviation before", "after")
        ]
        for column, pair in self.rows(planned):
            spreads = [found[f"std_{pair.name}"] or 0.0 for found in (before, after)]
            alike = [found[f"r_{pair.name}"] for found in (before, after)]
            cells = [figure(r) if std > FLAT else "flat" for r, std in zip(alike, spreads, strict=True)]
            rows.append((column, pair.student, pair.teacher or "labels", *cells, *map(figure, spreads)))
        shuffled = "; in training they followed the guide on another image" if planned["by"] == "shuffled" else ""
        return Table(rows, f"alpha on validation images: correlation with its guide, and standard deviation{shuffled}")
