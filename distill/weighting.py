"""How much a term weighs: measured as its share of the gradient at the layers it reads, and followed as it changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from distill.distiller import Distiller, Step
from distill.terms.base import Batch, Term

EVERY = 25  # training steps from one measurement to the next
PACE = 0.1  # of the way to what was measured, on a logarithmic scale: one batch in ten decides
SCALE = 1024.0  # on losses before their gradients are taken: in float16 they would be lost below 6e-8
REACH = 4.0  # a weight stays within this factor of the one it began with


def gradient_norm(loss: Tensor, features: Iterable[Tensor]) -> float:
    """The L2 norm of d loss / d features over all features together; 0 where none depends on the loss."""
    leaves = [f for f in features if f.requires_grad]
    if not loss.requires_grad or not leaves:
        return 0.0
    grads = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    total = sum((g.float().square().sum().item() for g in grads if g is not None), 0.0)
    return float(total**0.5)


def norms_of(task: Tensor, step: Step, terms: Iterable[Term], scale: float = 1.0) -> dict[str, tuple[float, float]]:
    """For each term by name, the gradient norms of the task's loss and of its own where the term is weighed.

    Losses are multiplied by `scale` first. Where terms are weighed at the same layers the task's is taken once.
    """
    whole: dict[frozenset[str], float] = {}
    found = {}
    for term in terms:
        features = [step.features[layer] for layer in dict.fromkeys(term.at)]
        if (layers := frozenset(term.at)) not in whole:
            whole[layers] = gradient_norm(scale * task, features)
        found[term.name] = whole[layers], gradient_norm(scale * step.of_term(term.name), features)
    return found


def weight_for_share(share: float, task: Iterable[float], term: Iterable[float]) -> float:
    """The factor that makes a term's gradient `share` of the task's, from norms measured on a few batches.

    Returns infinity where the term has no gradient: the caller reports it.
    """
    own = sum(term)
    return share * sum(task) / own if own > 0 else float("inf")


class Follower:
    """Keeps each term's gradient at its share of the task's while both change, slowly and within bounds.

    Every `EVERY` steps the norms are measured anew on that step's batch, and the weight goes `PACE` of the way, on a
    logarithmic scale, to the one that would give the share exactly; it never leaves `REACH` times its first value, so
    that a term whose work is done is not driven on for ever. `shares` names the terms that are followed: one with a
    fixed weight is left out. The distiller's weights are changed in place.
    """

    def __init__(self, distiller: Distiller, shares: Mapping[str, float], first: Mapping[str, float]) -> None:
        self.distiller = distiller
        self.shares = dict(shares)
        self.first = dict(first)

    def due(self, batch: Batch) -> bool:
        """Is this batch one to measure on?"""
        return (batch.epoch * batch.steps + batch.step) % EVERY == EVERY - 1

    def measure(self, task: Tensor, step: Step) -> dict[str, float]:
        """The weights that would give the shares on this batch; `task` is the task's loss per image, not yet backward.

        A term that is at rest, or has no gradient here, is left out.
        """
        followed = [term for term in self.distiller.terms if term.name in self.shares and step.readings]
        wanted: dict[str, float] = {}
        for name, (whole, own) in norms_of(task, step, followed, SCALE).items():
            own *= self.distiller.fraction**0.5  # over a part of the batch its norm is larger, as for a smaller batch
            weight = self.distiller.weights[name] * weight_for_share(self.shares[name], [whole], [own])
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
