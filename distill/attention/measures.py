"""How alike two maps of the same images are, and how concentrated one map is.

Each measure takes maps of a batch and gives one number per sample, (B,). Maps of different size meet on the smaller
grid. A zero map has no direction and no order, so what rests on these is NaN for it, as for one that is not finite.
"""

from __future__ import annotations

import torch
from scipy.stats import rankdata
from torch import Tensor

from distill.attention.maps import AttentionMap, compared, meet

TOP = 0.1  # the share of cells that counts as strongest, and with it the overlap of unrelated maps


def likeness(a: AttentionMap, b: AttentionMap) -> dict[str, Tensor]:
    """Every measure of two maps by name, each (B,): distance, cosine, spearman, overlap."""
    a, b = meet(a, b)
    return {measure.__name__: measure(a, b) for measure in (distance, cosine, spearman, overlap)}


def distance(a: AttentionMap, b: AttentionMap) -> Tensor:
    """||A - B||_2, what the attention term's form "l2" is made of. (B,)

    In [0, sqrt 2] for energy maps, which count with norm 1 (and NaN if one of them is zero); gates count as they are.
    (Zagoruyko & Komodakis, arXiv 1612.03928, equation 2 without beta / 2.)
    """
    x, y = (_directed(compared(m)) if m.kind == "energy" else compared(m) for m in meet(a, b))  # (B, N)
    return torch.linalg.vector_norm(x - y, dim=1)


def cosine(a: AttentionMap, b: AttentionMap) -> Tensor:
    """The cosine of the two maps, in [0, 1]; high for any two maps that are nearly flat. (B,)"""
    x, y = (_directed(m.unit()) for m in meet(a, b))
    return (x * y).sum(dim=1)


def spearman(a: AttentionMap, b: AttentionMap) -> Tensor:
    """The correlation of the cells' ranks, in [-1, 1], equal values sharing the mean of their ranks. (B,)

    0 for unrelated maps, 1 if one is any increasing function of the other, NaN if one is flat.
    """
    x, y = (_ranks(m) for m in meet(a, b))  # (B, N), centred
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return ((x * y).sum(dim=1) / torch.where(norms > 0, norms, torch.nan)).to(a.values.device)


def overlap(a: AttentionMap, b: AttentionMap) -> Tensor:
    """The share of the strongest tenth of a's cells (at least one cell) that is in the strongest tenth of b's. (B,)

    In [0, 1]; unrelated maps have `TOP`, 0.1, by chance. Cells that tie for the last places each count for the share
    of places left to them, as if lots were drawn, so a flat map is at chance too. NaN if one map is zero.
    """
    x, y = (_strongest(m) for m in meet(a, b))
    return (x * y).sum(dim=1) / x.sum(dim=1)


def effective_area(attention: AttentionMap) -> Tensor:
    """exp(entropy) / N of the map as a distribution over its N cells: the share of cells it is spread over. (B,)

    In (0, 1]: 1 if flat, k / N if equal on k cells and zero elsewhere; NaN for a zero map. It depends on the grid: a
    map looks more concentrated on a finer one.
    """
    values = attention.values.flatten(1).double()
    total = values.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(values / torch.where(total > 0, total, torch.nan)).sum(dim=1)
    return (entropy.exp() / values.shape[1]).clamp(max=1)


def _directed(flat: Tensor) -> Tensor:
    """(B, N) with NaN throughout the samples that are zero throughout, or not finite somewhere."""
    return torch.where((flat.any(dim=1) & flat.isfinite().all(dim=1))[:, None], flat, torch.nan)


def _ranks(attention: AttentionMap) -> Tensor:
    flat = _directed(attention.values.detach().flatten(1))
    ranks = torch.from_numpy(rankdata(flat.cpu().numpy(), axis=1))
    return ranks - ranks.mean(dim=1, keepdim=True)


def _strongest(attention: AttentionMap) -> Tensor:
    """(B, N): 1 for the strongest tenth, 0 for the rest, between where cells tie; each sample sums to its places."""
    flat = _directed(attention.values.flatten(1))
    places = max(1, round(TOP * flat.shape[1]))
    last = flat.topk(places, dim=1).values[:, -1:]
    above, tied = flat > last, flat == last
    left = places - above.sum(dim=1, keepdim=True)
    return above + tied * left / tied.sum(dim=1, keepdim=True)
