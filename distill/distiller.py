"""Teacher, student and terms brought together: one training forward in, named losses out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from distill.attention.taps import Taps
from distill.errors import InputError
from distill.schedule import Schedule
from distill.teacher import Teacher
from distill.terms.base import Batch, Reading, Term, View

ALWAYS = Schedule()  # in full, from beginning to end


@dataclass
class Step:
    """One forward pass of the student beside the teacher's; filled when the `watch` block ends.

    `features` are the student's at its tapped layers, (B, C, *S), the whole batch; `guide` the teacher's.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    guide: dict[str, Tensor] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)  # the term that each loss belongs to
    factor: float = 1.0  # of the schedule, on all weights
    idle: dict[str, Tensor] = field(default_factory=dict)  # zeros in place of losses, where the schedule is at rest

    def losses(self) -> dict[str, Tensor]:
        """Each term's losses times the term's weight: scalars, means over the compared images, ready to be summed."""
        weighted = {name: self.factor * self.weights[name] * r.loss for name, r in self.readings.items()}
        return weighted or self.idle

    def of_term(self, term: str) -> Tensor:
        """The weighted losses of one term, added up, without the schedule."""
        return torch.stack([self.weights[n] * r.loss for n, r in self.readings.items() if self.terms[n] == term]).sum()

    def figures(self) -> dict[str, Tensor]:
        """The detached figures of all terms, for the log."""
        return {name: value for reading in self.readings.values() for name, value in reading.figures.items()}


class Distiller:
    """Runs the teacher on a student's batch and compares what both saw; None where all terms go by the labels.

    `weights` holds one factor per term name, relative to the task's loss as a mean per image; `schedule` multiplies
    all of them. While it is 0 the teacher rests, except on the first batch of each epoch, whose figures go on the log.
    With `fraction` below 1 a random part of each batch is compared, and the teacher costs that part. For losses that
    are means over images, as attention's are, the estimate stays unbiased; outputs and features are compared over the
    batch as a whole. The choice is drawn from (seed, epoch, step), so it neither disturbs the trainer's generators nor
    changes on resume. `shuffled` gives each image the teacher's features of another one of its batch: the control that
    tells whether it matters what the teacher sees in this image.

    >>> with distiller.watch(student, Batch(images)) as step:
    ...     task = student_loss(images)
    >>> total = task + sum(step.losses().values())
    """

    def __init__(
        self,
        teacher: Teacher | None,
        terms: Sequence[Term],
        weights: Mapping[str, float],
        fraction: float = 1.0,
        seed: int = 0,
        schedule: Callable[[float], float] = ALWAYS,
        shuffled: bool = False,
    ) -> None:
        self.teacher = teacher
        self.terms = tuple(terms)
        self.weights = dict(weights)
        self.fraction = fraction
        self.seed = seed
        self.schedule = schedule
        self.shuffled = shuffled
        self._columns: tuple[str, ...] = ()
        self.student_layers = tuple(dict.fromkeys(layer for term in terms for layer in (*term.layers()[0], *term.at)))
        self._taps: tuple[nn.Module, Taps] | None = None

    @property
    def titles(self) -> dict[str, str]:
        """What each term is called, by name."""
        return {term.name: term.title for term in self.terms}

    @contextmanager
    def watch(self, student: nn.Module, batch: Batch) -> Iterator[Step]:
        """Run the student's forward inside; its hooks exist only there. The step's losses are ready afterwards.

        Raises SilentTapError when a tapped layer of either network did not run.
        """
        factor = self.schedule(batch.epochs)
        if factor == 0 and batch.step > 0 and self._columns:
            zero = batch.images.new_zeros((), dtype=torch.float32)
            yield Step(factor=0.0, idle=dict.fromkeys(self._columns, zero))
            return
        chosen = self._choose(batch)
        compared = batch if chosen is None else _part(batch, chosen)
        step = Step(guide=self._guide(compared.images), factor=factor)
        with self._tapped(student) as taps:
            yield step
            step.features = taps.read()
        mine = step.features if chosen is None else {name: f[chosen] for name, f in step.features.items()}
        for term in self.terms:
            readings = term(View(mine), View(step.guide), compared)
            step.readings |= readings
            step.terms |= dict.fromkeys(readings, term.name)
            step.weights |= dict.fromkeys(readings, self.weights[term.name])
        self._columns = tuple(step.readings)

    def _guide(self, images: Tensor) -> dict[str, Tensor]:
        if self.shuffled and len(images) < 2:
            raise InputError("--shuffled compares with another image: it needs batches of two or more")
        seen = self.teacher(images) if self.teacher else {}
        return {name: features.roll(1, dims=0) for name, features in seen.items()} if self.shuffled else seen

    def _tapped(self, student: nn.Module) -> Taps:
        if self._taps is None or self._taps[0] is not student:
            self._taps = student, Taps(student, self.student_layers)
        return self._taps[1]

    def _choose(self, batch: Batch) -> Tensor | None:
        total = batch.images.shape[0]
        count = max(1, round(self.fraction * total))
        if count == total:
            return None
        generator = torch.Generator().manual_seed(hash((self.seed, batch.epoch, batch.step)) % 2**63)
        return torch.randperm(total, generator=generator)[:count].sort().values.to(batch.images.device)


def _part(batch: Batch, chosen: Tensor) -> Batch:
    """The chosen images (sorted numbers) with their boxes, each box's image counted among the chosen."""
    images, masks = batch.images[chosen], None if batch.masks is None else batch.masks[chosen]
    batch = replace(batch, masks=masks)
    if batch.boxes is None or batch.classes is None or batch.box_image is None:
        return replace(batch, images=images)
    chosen = chosen.to(batch.box_image)
    keep = torch.isin(batch.box_image, chosen)
    box_image = torch.searchsorted(chosen, batch.box_image[keep]).to(chosen)
    return replace(batch, images=images, boxes=batch.boxes[keep], classes=batch.classes[keep], box_image=box_image)
