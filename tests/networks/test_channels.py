"""Channels followed through networks whose wiring is known by heart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.modes import as_found
from distill.networks.channels import UNKNOWN, Channels
from distill.networks.tracing import trace_channels


class Net(nn.Module):
    """Layers by name, and how they are wired."""

    def __init__(self, wiring: Callable[[Any, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self, x)


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def follow(wiring: Callable[[Any, Tensor], Tensor], **layers: Any) -> Channels:
    return trace_channels(Net(wiring, **layers), (1, 3, 8, 8))


def numbers(channels: Channels, name: str, axis: int) -> list[int]:
    return channels.numbers[f"{name}.weight", axis].tolist()


def pieces(channels: Channels, name: str, axis: int) -> list[tuple[int, int]]:
    """Start and size of each."""
    return [(piece.start, len(piece.classes)) for piece in channels.pieces((f"{name}.weight", axis))]


def test_what_a_convolution_writes_the_next_one_reads() -> None:
    found = follow(
        lambda net, x: net.b(functional.interpolate(functional.max_pool2d(net.bn(net.a(x)).relu(), 2), scale_factor=2)),
        a=conv(3, 4), bn=nn.BatchNorm2d(4), b=conv(4, 2),
    )  # fmt: skip
    assert numbers(found, "a", 1) == [0, 1, 2]
    written = numbers(found, "a", 0)
    assert len(set(written)) == 4 and not set(written) & {0, 1, 2}
    assert written == numbers(found, "b", 1) == numbers(found, "bn", 0)
    assert found.numbers["bn.running_var", 0].tolist() == found.numbers["a.bias", 0].tolist() == written
    assert found.readers == {("a.weight", 1), ("b.weight", 1)}


def test_concatenation_and_chunks_keep_identities_and_cut() -> None:
    found = follow(
        lambda net, x: net.c(torch.cat([(y := net.a(x).chunk(2, 1))[1], net.b(y[0]), y[0]], 1)),
        a=conv(3, 6), b=conv(3, 2), c=conv(8, 1),
    )  # fmt: skip
    a, b = numbers(found, "a", 0), numbers(found, "b", 0)
    assert numbers(found, "c", 1) == [*a[3:], *b, *a[:3]]
    assert pieces(found, "a", 0) == [(0, 3), (3, 3)]
    assert pieces(found, "c", 1) == [(0, 3), (3, 2), (5, 3)]


def test_neighbours_by_chance_are_two_pieces() -> None:
    """What two convolutions write in a row has numbers in a row."""
    found = follow(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), a=conv(3, 2), b=conv(3, 2), c=conv(4, 1))
    assert numbers(found, "c", 1) == list(range(numbers(found, "c", 1)[0], numbers(found, "c", 1)[0] + 4))
    assert pieces(found, "c", 1) == [(0, 2), (2, 2)]


def test_a_sum_ties_and_hands_cuts_on() -> None:
    found = follow(
        lambda net, x: net.c((y := net.a(x)) + net.b(y)) + net.d(y[:, 1:]),
        a=conv(3, 4), b=conv(4, 4), c=conv(4, 1), d=conv(3, 1),
    )  # fmt: skip
    assert numbers(found, "a", 0) != numbers(found, "b", 0)
    assert found.classes(("a.weight", 0)) == found.classes(("b.weight", 0)) == found.classes(("c.weight", 1))
    assert pieces(found, "a", 0) == pieces(found, "b", 0) == [(0, 1), (1, 3)]


def test_a_convolution_by_channel_hands_its_channels_on() -> None:
    found = follow(lambda net, x: net.c(net.b(net.a(x))), a=conv(3, 4), b=conv(4, 4, groups=4), c=conv(4, 1))
    assert numbers(found, "a", 0) == numbers(found, "b", 0) == numbers(found, "c", 1)
    assert ("b.weight", 1) not in found.numbers


def test_a_transposed_convolution_has_its_axes_the_other_way_round() -> None:
    found = follow(
        lambda net, x: net.b(net.up(net.a(x))), a=conv(3, 4), up=nn.ConvTranspose2d(4, 2, 2, 2), b=conv(2, 1)
    )
    assert numbers(found, "up", 0) == numbers(found, "a", 0) and numbers(found, "up", 1) == numbers(found, "b", 1)
    assert ("up.weight", 0) in found.readers and ("up.weight", 1) not in found.readers


def test_a_factor_per_channel_is_tied_and_a_gate_is_not() -> None:
    found = follow(
        lambda net, x: net.b(net.gamma.view(-1, 1, 1) * net.a(x) * net.gate(x).sigmoid()),
        a=conv(3, 4), gate=conv(3, 1), b=conv(4, 1), gamma=nn.Parameter(torch.ones(4)),
    )  # fmt: skip
    assert found.classes(("gamma", 0)) == found.classes(("a.weight", 0)) == found.classes(("b.weight", 1))
    assert found.classes(("gate.weight", 0))[0] not in found.classes(("a.weight", 0))


def test_a_pooled_vector_into_a_linear_layer() -> None:
    found = follow(
        lambda net, x: net.head(functional.adaptive_avg_pool2d(net.a(x), 1).flatten(1)),
        a=conv(3, 5), head=nn.Linear(5, 2),
    )  # fmt: skip
    assert numbers(found, "head", 1) == numbers(found, "a", 0) and len(numbers(found, "head", 0)) == 2


def attention(net: Any, x: Tensor) -> Tensor:
    """Two heads of 2 + 2 + 3 channels."""
    qkv = net.qkv(x).view(1, 2, 7, 64)
    q, k, v = qkv.split([2, 2, 3], dim=2)
    scores = ((q * 2**-0.5).transpose(-2, -1) @ k).softmax(-1)
    values: Tensor = net.proj((v @ scores.transpose(-2, -1)).view(1, 6, 8, 8) + net.pe(v.reshape(1, 6, 8, 8)))
    return values


def test_attention_ties_queries_to_keys_and_gathers_heads() -> None:
    found = follow(attention, qkv=conv(3, 14), proj=conv(6, 4), pe=conv(6, 6, groups=6))
    qkv = numbers(found, "qkv", 0)
    assert pieces(found, "qkv", 0) == [(0, 2), (2, 2), (4, 3), (7, 2), (9, 2), (11, 3)]
    classes = found.classes(("qkv.weight", 0))
    assert classes[:2] == classes[2:4] and classes[7:9] == classes[9:11] and len(set(classes)) == 10
    assert numbers(found, "proj", 1) == numbers(found, "pe", 0) == [*qkv[4:7], *qkv[11:]]
    heads = [piece.head for piece in found.pieces(("qkv.weight", 0))]
    assert len(set(heads[:3])) == len(set(heads[3:])) == 1 and heads[0] != heads[3] and None not in heads
    assert [piece.head for piece in found.pieces(("proj.weight", 1))] == [heads[0], heads[3]]
    assert found.pieces(("proj.weight", 0))[0].head is None
    assert set(classes[:2]).isdisjoint(found.read) and set(classes[4:7]) <= found.read


def test_what_is_mixed_up_is_unknown() -> None:
    found = follow(lambda net, x: net.b(net.a(x).cumsum(1)), a=conv(3, 4), b=conv(4, 2))
    assert numbers(found, "b", 1) == [UNKNOWN] * 4 and not found.known(("b.weight", 1))
    assert found.known(("b.weight", 0))


def test_rows_and_columns_swapped_are_unknown_too() -> None:
    """Channels that differ between positions are none."""
    found = follow(lambda net, x: net.b(net.a(x).transpose(1, 2)), a=conv(3, 8), b=conv(8, 2))
    assert numbers(found, "b", 1) == [UNKNOWN] * 8


def test_the_network_is_left_as_it_was() -> None:
    net = Net(lambda net, x: net.bn(net.a(x)), a=conv(3, 4), bn=nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with as_found(net):
        trace_channels(net, (1, 3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert net(torch.rand(1, 3, 8, 8)).requires_grad
