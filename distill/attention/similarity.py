"""How alike two networks answer to the same images, layer by layer: in their features (CKA) and in their attention.

Linear CKA (Kornblith et al., ICML 2019, arXiv 1905.00414) compares which images a layer finds alike, so that it needs
neither equal channels nor equal grids. With few images its textbook form is far above 0 for layers that have nothing to
do with each other. Here it is debiased and gathered over minibatches as in Nguyen, Raghu & Kornblith (ICLR 2021, arXiv
2010.15327, equation 3), with the unbiased HSIC_1 of Song et al. (JMLR 13, 2012, equation 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.attention.maps import AttentionMap

LEAST_IMAGES = 4  # in a minibatch: the unbiased estimate divides by n - 3
CONSTANT = 1e-6  # spread over the images, relative to the features, that rounding alone explains


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA of features x (n, ...) and y (n, ...) of the same n images, as a single minibatch.

    1 for features that are equal up to rotation, shift and one common factor; about 0, and as often below it, for
    unrelated ones. NaN where one does not depend on the image. Raises ValueError for n < 4.
    """
    grams = torch.stack([centred_gram(x), centred_gram(y)])
    hsic = hsic_matrix(grams, grams)
    return float(_ratio(hsic[0, 1], hsic[0, 0] * hsic[1, 1]))


def centred_gram(features: Tensor) -> Tensor:
    """The inner products between the images of `features` (n, ...), U-centred: (n, n) float64, diagonal zero.

    U-centring (Szekely & Rizzo, Annals of Statistics 42, 2014) makes every row and column sum to 0 without the
    diagonal. Products of two such matrices are the unbiased HSIC, see `hsic_matrix`. Zero where the features do not
    depend on the image. Raises ValueError for n < 4.
    """
    n = len(features)
    if n < LEAST_IMAGES:
        raise ValueError(f"{LEAST_IMAGES} images are the least that CKA can be estimated from, not {n}")
    x = features.flatten(1)
    x = x if x.dtype == torch.float64 else x.float()
    centred = x - x.mean(dim=0)  # changes nothing but the rounding: large means would drown the differences
    if centred.norm() <= CONSTANT * x.norm():
        return torch.zeros((n, n), dtype=torch.float64)
    gram = (centred @ centred.T).cpu().double().fill_diagonal_(0)  # (n, n); not every GPU has doubles
    rows = gram.sum(dim=1)
    gram = gram - (rows[:, None] + rows[None, :]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return gram.fill_diagonal_(0)


def hsic_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased HSIC_1 of each of the U-centred Gram matrices a (A, n, n) with each of b (B, n, n): (A, B)."""
    n = a.shape[-1]
    return a.flatten(1) @ b.flatten(1).T / (n * (n - 3))


@dataclass(frozen=True)
class Response:
    """What one network makes of a minibatch: for each of its L layers, in order, what a comparison needs.

    `grams` are the U-centred Gram matrices (L, n, n), `maps` the attention maps, each (n, h, w).
    """

    grams: Tensor
    maps: tuple[AttentionMap, ...]

    @classmethod
    def of(cls, features: Mapping[str, Tensor]) -> Response:
        """From the features (n, C, *S) by layer name. Raises ValueError for n < 4."""
        grams = torch.stack([centred_gram(one) for one in features.values()])
        return cls(grams.cpu(), tuple(AttentionMap.read(one, name) for name, one in features.items()))


@dataclass(frozen=True)
class Likeness:
    """How alike the layers of two networks are: teacher layers by student layers, (T, S) float64, NaN where unknown.

    `cka` is the debiased linear CKA, at most about 1, and `chance` how far it scatters about 0 where the images of one
    side are shuffled (a standard deviation): what is within two of it says nothing. `cosine` is the mean over
    images of the cosine between the two attention maps on the smaller grid, in [0, 1]; `shuffled` is the same between
    maps of different images of a minibatch, averaged over all such: what two maps share without seeing the same thing.
    `constant` (T,) is that of the teacher's own maps: near 1, a layer's map is the same whatever the image shows.
    """

    cka: Tensor
    chance: Tensor
    cosine: Tensor
    shuffled: Tensor
    constant: Tensor


class LikenessMeter:
    """Gathers the `Likeness` of two networks over minibatches, each network seeing the same images.

    HSIC is summed over the minibatches before it is normalised (each counts alike), cosines over images.
    """

    def __init__(self) -> None:
        self._hsic: list[Tensor] = []  # of each teacher layer (T) and student layer (S) with itself, of both (T, S),
        # and its variance (T, S) where the images of one side are shuffled
        self._sums: Tensor = torch.zeros(())  # (T, S, 4): cosines, how many, shuffled cosines, how many
        self._own: Tensor = torch.zeros(())  # (T, 4): the same of the teacher's layers with themselves

    def add(self, teacher: Response, student: Response) -> None:
        """One minibatch, the same images in the same order on both sides."""
        own = [hsic_matrix(side.grams, side.grams).diagonal() for side in (teacher, student)]
        parts = [*own, hsic_matrix(teacher.grams, student.grams), _shuffled_variance(teacher.grams, student.grams)]
        self._hsic = [a + b for a, b in zip(self._hsic, parts, strict=True)] if self._hsic else parts
        self._sums = self._sums + _cosines(teacher.maps, student.maps)
        self._own = self._own + torch.stack([_cosines((one,), (one,))[0, 0] for one in teacher.maps])

    def result(self) -> Likeness:
        """The likeness over all that was added. Raises ValueError before anything was."""
        if not self._hsic:
            raise ValueError("nothing was added")
        teacher, student, cross, variance = self._hsic
        squares = teacher[:, None] * student[None, :]
        same, different = _means(self._sums)
        return Likeness(_ratio(cross, squares), _ratio(variance.sqrt(), squares), same, different, _means(self._own)[1])


def _means(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosines of the same image and of different images, from their sums and numbers (..., 4)."""
    cosines, images, shuffled, couples = sums.unbind(dim=-1)
    same = torch.where(images > 0, cosines / images.clamp(min=1), math.nan)
    return same, torch.where(couples > 0, shuffled / couples.clamp(min=1), math.nan)


def _shuffled_variance(a: Tensor, b: Tensor) -> Tensor:
    """(A, B): mean square of HSIC over all n - 1 cyclic shifts of b's images, none of which then meets itself."""
    shifts = range(1, a.shape[-1])
    return torch.stack([hsic_matrix(a, b.roll((k, k), dims=(1, 2))).square() for k in shifts]).mean(dim=0)


def _ratio(cross: Tensor, squares: Tensor) -> Tensor:
    return torch.where(squares > 0, cross / torch.where(squares > 0, squares, 1.0).sqrt(), math.nan)


def _cosines(teacher: tuple[AttentionMap, ...], student: tuple[AttentionMap, ...]) -> Tensor:
    """(T, S, 4): sum and number of the cosines of the same image, then of different images; zero maps left out."""
    cache: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def unit(one: AttentionMap, size: tuple[int, ...]) -> Tensor:
        key = id(one), size
        if key not in cache:
            cache[key] = one.resize(size).unit()  # (n, cells)
        return cache[key]

    table = torch.zeros(len(teacher), len(student), 4, dtype=torch.float64)
    for i, t in enumerate(teacher):
        for j, s in enumerate(student):
            size = tuple(map(min, t.size, s.size))  # the smaller grid, where `meet` brings both
            a, b = unit(t, size), unit(s, size)
            products = (a @ b.T).cpu().double()  # (n, n): image k of the teacher with image l of the student
            alive = (a.any(dim=1)[:, None] & b.any(dim=1)[None, :]).cpu().double()
            same, number = products.trace(), alive.trace()
            table[i, j] = torch.stack([same, number, products.sum() - same, alive.sum() - number]).cpu()
    return table
