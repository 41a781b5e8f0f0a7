"""How a term stands beside the task at the layers it reads: its share of the gradient there, and its direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.distiller import Distiller, Step
from distill.terms.base import Batch, Term

EVERY = 25  # training steps from one measurement to the next
PACE = 0.1  # of the way to what was measured, on a logarithmic scale: one batch in ten decides
SCALE = 1024.0  # on losses before their gradients are taken: in float16 they would be lost below 6e-8
REACH = 4.0  # a weight stays within this factor of the one it began with


@dataclass(frozen=True)
class Balance:
    """A term beside the task where it is weighed: the norms of both gradients, and the cosine between them in [-1, 1].

    Below 0 a step that serves the one costs the other. The cosine is NaN where either gradient is zero.
    """

    task: float
    own: float
    cosine: float


def gradients(loss: Tensor, features: Iterable[Tensor]) -> list[Tensor | None]:
    """d loss / d feature for each feature, in float32; None for one that the loss does not depend on."""
    features = list(features)
    leaves = [f for f in features if f.requires_grad]
    if not loss.requires_grad or not leaves:
        return [None] * len(features)
    found = iter(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True))
    taken = [next(found) if f.requires_grad else None for f in features]
    return [None if g is None else g.float() for g in taken]


def norm_of(parts: Iterable[Tensor | None]) -> float:
    """The L2 norm over all parts together."""
    return math.sqrt(sum((g.square().sum().item() for g in parts if g is not None), 0.0))


def balances_of(task: Tensor, step: Step, terms: Iterable[Term], scale: float = 1.0) -> dict[str, Balance]:
    """How each term, by name, stands beside the task's loss at the layers where it is weighed.

    Losses are multiplied by `scale` first. Where terms are weighed at the same layers the task's is taken once.
    """
    whole: dict[tuple[str, ...], list[Tensor | None]] = {}
    found = {}
    for term in terms:
        layers = tuple(sorted(set(term.at)))
        features = [step.features[layer] for layer in layers]
        if layers not in whole:
            whole[layers] = gradients(scale * task, features)
        found[term.name] = _balance(whole[layers], gradients(scale * step.of_term(term.name), features))
    return found


def _balance(task: Sequence[Tensor | None], own: Sequence[Tensor | None]) -> Balance:
    both = norm_of(task), norm_of(own)
    pairs = [(a, b) for a, b in zip(task, own, strict=True) if a is not None and b is not None]
    dot = sum((a * b).sum().item() for a, b in pairs)
    product = both[0] * both[1]
    return Balance(*both, dot / product if 0 < product < math.inf else math.nan)


def weight_for_share(share: float, task: Iterable[float], term: Iterable[float]) -> float:
    """The factor that makes a term's gradient `share` of the task's, from norms measured on a few batches.

    Returns infinity where the term has no gradient: the caller reports it.
    """
    own = sum(term)
    return share * sum(task) / own if own > 0 else float("inf")


def due(batch: Batch) -> bool:
    """Is this training batch one to measure on?"""
    return (batch.epoch * batch.steps + batch.step) % EVERY == EVERY - 1


def measure(task: Tensor, step: Step, distiller: Distiller) -> dict[str, Balance]:
    """How the terms stand beside the task's loss per image, not yet backward; nothing where the schedule is at rest.

    Where a part of the batch is compared, the task's gradient on the rest is at a right angle to the term's: the cosine
    is that on the part, if both are spread evenly.
    """
    found = balances_of(task, step, distiller.terms, SCALE) if step.readings else {}
    return {name: replace(one, cosine=one.cosine / distiller.fraction**0.5) for name, one in found.items()}


class Follower:
    """Keeps each term's gradient at its share of the task's while both change, slowly and within bounds.

    Every `EVERY` steps the norms are measured anew on that step's batch, and the weight goes `PACE` of the way, on a
    logarithmic scale, to the one that would give the share exactly; it never leaves `REACH` times its first value, so
    that a term whose work is done is not driven on for ever. `shares` names the terms that are followed: one with a
    fixed weight is left out. The distiller's weights are changed in place, by whoever measures (`due`).
    """

    def __init__(self, distiller: Distiller, shares: Mapping[str, float], first: Mapping[str, float]) -> None:
        self.distiller = distiller
        self.shares = dict(shares)
        self.first = dict(first)

    def wanted(self, balances: Mapping[str, Balance]) -> dict[str, float]:
        """The weights that would have given the shares, from what `measure` found on a batch.

        A term that is at rest, or has no gradient there, is left out.
        """
        wanted: dict[str, float] = {}
        for name in self.shares.keys() & balances.keys():
            found = balances[name]
            own = found.own * self.distiller.fraction**0.5  # over a part of the batch its norm is larger
            weight = self.distiller.weights[name] * weight_for_share(self.shares[name], [found.task], [own])
            if 0 < weight < math.inf:
                wanted[name] = weight
        return wanted

    def move(self, wanted: Mapping[str, float]) -> None:
        """Go some of the way to these weights."""
        for name, weight in wanted.items():
            now = self.distiller.weights[name]
            moved = now * (weight / now) ** PACE
            first = self.first[name]
            self.distiller.weights[name] = min(max(moved, first / REACH), first * REACH)
