"""Which channels of a large network a smaller one of the same form keeps: the strongest, the same ones throughout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from distill.errors import InputError
from distill.networks.channels import Axis, Channels, Piece

COPY = 0.02  # of a channel's power: what others leave of it below that is noise, and the channel a copy
Matches = Mapping[Axis, list[tuple[Piece, Piece]]]


def select(
    small: Channels,
    large: Channels,
    shared: Collection[str],
    value: Tensor,
    grams: Callable[[Sequence[int]], Tensor] | None = None,
) -> dict[Axis, Tensor]:
    """For each axis of the small network's tensors (C,) positions along the large one's, ascending in each piece.

    `shared` are the tensors that correspond, `value` (K,) tells what each class of the large network's channels is
    worth. With `grams`, the inner products (C, C) of what channels of the large network carry, those are taken that
    tell the most of all, so that of two alike there is one. What the small network ties lies in the same positions
    wherever it occurs. Of outputs, which nothing reads, all are taken or, with -1 for a position, none. Axes that
    cannot be followed are missing. Raises InputError if what connects layers of the small network is larger than in the
    large one.
    """
    matches = _matches(small, large, shared, value)
    groups: dict[int, dict[int, list[int]]] = defaultdict(dict)  # what a class of the small network is taken from
    for mine, its in (pair for found in matches.values() for pair in found):
        groups[mine.classes[0]][its.classes[0]] = list(its.classes)

    known: dict[int, Tensor] = {}  # the same channels are chosen wherever they occur: once is enough

    def place(mine: Piece, its: Piece) -> Tensor:
        size = len(mine.classes)
        if _is_output(its, large) and size != len(its.classes):
            return torch.full((size,), -1)
        if mine.classes[0] not in known:
            sources = groups[mine.classes[0]].values()
            order = torch.stack([value[classes] for classes in sources]).sum(0).argsort(descending=True, stable=True)
            if grams is not None:
                found = telling(sum(map(grams, sources), torch.zeros(())), size)
                order = torch.cat([found, order[~torch.isin(order, found)]])  # the rest as far as there is room
            known[mine.classes[0]] = order[:size].sort().values
        return its.start + known[mine.classes[0]]

    odd = {mine for mine, group in groups.items() if len({len(classes) for classes in group.values()}) > 1}
    return {
        axis: torch.cat([place(*pair) for pair in found])
        for axis, found in matches.items()
        if odd.isdisjoint(mine.classes[0] for mine, _ in found)  # taken from groups of several sizes: none fits all
    }


def telling(gram: Tensor, size: int) -> Tensor:
    """At most `size` numbers of channels from which all can be told best, by their inner products `gram` (C, C).

    Greedy column selection (Farahat, Ghodsi and Kamel, ICDM 2011, in its plain form): the channel that explains the
    most of what is left unexplained comes next; those that say nothing new never come. None do where products are not
    finite.
    """
    if not gram.isfinite().all():
        return torch.empty(0, dtype=torch.long)
    left = gram.clone()
    noise = COPY * gram.diagonal()
    chosen: list[int] = []
    while len(chosen) < size:
        own = left.diagonal()
        explained = left.square().sum(0) / own.clamp(min=1e-30)
        best = int(torch.where(own > noise, explained, -1.0).argmax())
        if own[best] <= noise[best]:
            break
        chosen.append(best)
        left -= torch.outer(left[:, best], left[best]) / own[best].clone()
    return torch.tensor(chosen, dtype=torch.long)


def evenly(size: int, full: int) -> Tensor:
    """Evenly spaced positions (size,) of `full`: what is left to take where channels have no identity."""
    return torch.arange(size) * full // size


def _matches(small: Channels, large: Channels, shared: Collection[str], value: Tensor) -> Matches:
    """The pieces of each axis side by side: of deeper blocks the first, of more attention heads the strongest."""
    found = {}
    for axis in small.numbers:
        if axis[0] not in shared or axis not in large.numbers or not (small.known(axis) and large.known(axis)):
            continue
        mine, its = small.pieces(axis), _strongest_heads(small.pieces(axis), large.pieces(axis), large, value)
        pairs = list(zip(mine, its, strict=False))
        larger = [a for a, b in pairs if len(a.classes) > len(b.classes) and not _is_output(b, large)]
        larger += mine[len(its) :]
        if any(len(small.layers[piece.classes[0]]) > 1 for piece in larger):
            sizes = f"{len(small.numbers[axis])} channels, the teacher's {len(large.numbers[axis])}"
            raise InputError(f"{axis[0]}: the student's has {sizes}: only a smaller student inherits")
        if not larger:  # what is larger only inside of a layer stays as drawn
            found[axis] = pairs
    return found


def _strongest_heads(mine: list[Piece], its: list[Piece], large: Channels, value: Tensor) -> list[Piece]:
    """The large network's pieces, without those of attention heads that the small one has no place for."""
    wanted = {piece.head for piece in mine if piece.head is not None}
    heads = list(dict.fromkeys(piece.head for piece in its if piece.head is not None))
    if not 0 < len(wanted) < len(heads):
        return its

    def worth(head: int) -> float:
        """Of the values that the head passes on; queries and keys are read by no weights."""
        return float(value[sorted({large.same[n] for n in large.heads.subset(head)} & large.read)].sum())

    best = sorted(heads, key=worth, reverse=True)[: len(wanted)]
    return [piece for piece in its if piece.head is None or piece.head in best]


def _is_output(piece: Piece, channels: Channels) -> bool:
    return piece.head is None and piece.classes[0] not in channels.read
