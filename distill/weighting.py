"""How much a term weighs: measured as its share of the gradient at the layers it reads."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def gradient_norm(loss: Tensor, features: Iterable[Tensor]) -> float:
    """The L2 norm of d loss / d features over all features together; 0 where none depends on the loss."""
    leaves = [f for f in features if f.requires_grad]
    if not loss.requires_grad or not leaves:
        return 0.0
    grads = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    total = sum((g.float().square().sum().item() for g in grads if g is not None), 0.0)
    return float(total**0.5)


def weight_for_share(share: float, task: Iterable[float], term: Iterable[float]) -> float:
    """The factor that makes a term's gradient `share` of the task's, from norms measured on a few batches.

    Returns infinity where the term has no gradient: the caller reports it.
    """
    own = sum(term)
    return share * sum(task) / own if own > 0 else float("inf")
