"""U-Nets are read, paired and distilled by the same code as detectors, their gates too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.attention.layers import Anatomy, LayerInfo, by_role, describe
from distill.attention.pairs import Pair, pair_layers
from distill.distiller import Distiller
from distill.errors import InputError
from distill.networks.unet import UNet
from distill.proof import prove
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch

SIZES = {2: (32, 24), 3: (16, 12, 8)}


def network(width: int, dims: int, seed: int, **more: object) -> UNet:
    torch.manual_seed(seed)
    return UNet(1, 2, [width, 2 * width, 4 * width], dims, gated="all", **more)  # type: ignore[arg-type]


def images(dims: int) -> torch.Tensor:
    return torch.rand(4, 1, *SIZES[dims], generator=torch.Generator().manual_seed(0))


def layers_of(unet: UNet, dims: int) -> list[LayerInfo]:
    return describe(unet, images(dims), Anatomy(named=unet.roles))


@pytest.mark.parametrize("dims", [2, 3])
def test_roles_are_found_by_level(dims: int) -> None:
    roles = by_role(layers_of(network(4, dims, 0), dims))
    assert list(roles) == ["D1", "D2", "E1", "E2", "E3", "G1", "G2", "X1", "X2"]
    assert roles["E2"].channels == 8 and roles["G2"].channels == 1
    assert roles["G1"].size == roles["E2"].size  # coefficients lie on the grid of theta, a level below


def test_gates_of_several_heads_have_roles_of_their_own() -> None:
    roles = by_role(layers_of(network(4, 2, 0, heads=2), 2))
    assert [role for role in roles if role.startswith("G")] == ["G1.1", "G1.2", "G2.1", "G2.2"]
    (pair,) = pair_layers(*[layers_of(network(4, 2, seed, heads=2), 2) for seed in (0, 1)], ["G2.1"])
    assert (pair.kind, pair.student, pair.column) == ("gate", "gates.2.alpha.1", "at_G2.1")


def test_pairs_by_default_and_by_role() -> None:
    mine, theirs = layers_of(network(2, 2, 0), 2), layers_of(network(4, 2, 1), 2)
    assert [(pair.name, pair.kind) for pair in pair_layers(mine, theirs)] == [("D1", "energy"), ("D2", "energy")]
    assert pair_layers(mine, theirs, ["G2"]) == [Pair("G2", "gates.2.alpha", "gates.2.alpha", kind="gate")]
    with pytest.raises(InputError, match="'G2:E2': a gate's coefficients and a layer's energy are not the same kind"):
        pair_layers(mine, theirs, ["G2:E2"])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_student_learns_its_teachers_gates(dims: int) -> None:
    student, guide = network(4, dims, 0).train(), network(6, dims, 1)
    with torch.no_grad():  # a teacher whose gates are no constants
        guide.train()(images(dims))  # BatchNorm's statistics
        for unit in (guide.gates["1"].psi, guide.gates["2"].psi):
            unit.weight.mul_(20)
            unit.bias.zero_()
    pairs = pair_layers(layers_of(student, dims), layers_of(guide, dims), ["G1", "G2", "D1"])
    gates = AttentionTerm(pairs[:2])
    teacher = Teacher(guide, [pair.teacher for pair in pairs], stride=1)
    distiller = Distiller(teacher, [gates], {"attention": 1.0})
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        with distiller.watch(student, Batch(images(dims))) as step:
            student(images(dims))
        loss = torch.stack(list(step.losses().values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    alpha = step.features["gates.2.alpha"]
    target = step.guide["gates.2.alpha"]
    together = torch.corrcoef(torch.stack([alpha.flatten(), target.flatten()]))[0, 1]
    assert together > 0.5, "its gate opens where the teacher's does, not only as far on average"


def test_the_proof_holds_for_gates_and_energies() -> None:
    student, guide = network(2, 2, 0).train(), network(4, 2, 1)
    pairs = pair_layers(layers_of(student, 2), layers_of(guide, 2), ["G2", "D1"])
    distiller = Distiller(Teacher(guide, [pair.teacher for pair in pairs], stride=1), [AttentionTerm(pairs)], {})
    batch = images(2)
    target = torch.randint(0, 2, (4, *SIZES[2]), generator=torch.Generator().manual_seed(1))

    def run(network: nn.Module) -> tuple[torch.Tensor, object]:
        with distiller.watch(network, Batch(batch)) as step:
            loss = nn.functional.cross_entropy(network(batch), target)
        return loss, step

    proof = prove(distiller, student, [run], 0.2)  # type: ignore[list-item]
    proof.raise_if_failed()
    assert proof.weights["attention"] > 0
