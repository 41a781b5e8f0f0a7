"""A small network's channels among a large one's: by value, the same ones wherever they occur."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Sequential

from distill.errors import InputError
from distill.networks.channels import Channels
from distill.networks.selection import evenly, select, telling

from .test_channels import attention, conv, follow


def residual(size: int, deeper: bool = False) -> Channels:
    def wiring(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        parts = [y, y + net.b(y), *([net.more(y)] if deeper else [])]
        out: Tensor = net.c(torch.cat(parts, 1))
        return out

    more = {"more": conv(size, size)} if deeper else {}
    return follow(wiring, a=conv(3, size), b=conv(size, size), c=conv((3 if deeper else 2) * size, 2), **more)


SHARED = [f"{name}.{kind}" for name in "abc" for kind in ("weight", "bias")]


def worth(channels: Channels, name: str, values: list[float]) -> Tensor:
    value = torch.zeros(channels.count)
    value[channels.classes((f"{name}.weight", 0))] = torch.tensor(values)
    return value


def test_the_best_are_kept_throughout() -> None:
    large = residual(5)
    places = select(residual(2), large, SHARED, worth(large, "a", [1.0, 5.0, 0.0, 2.0, 1.0]))
    kept = {axis: place.tolist() for axis, place in places.items()}
    assert kept["a.weight", 0] == kept["a.bias", 0] == kept["b.weight", 0] == kept["b.weight", 1] == [1, 3]
    assert kept["c.weight", 1] == [1, 3, 6, 8] and kept["c.weight", 0] == [0, 1] and kept["a.weight", 1] == [0, 1, 2]


def test_of_equals_the_first() -> None:
    large = residual(5)
    places = select(residual(2), large, SHARED, torch.ones(large.count))
    assert places["a.weight", 0].tolist() == [0, 1]


def test_of_a_deeper_block_the_first_parts() -> None:
    large = residual(4, deeper=True)
    places = select(residual(2), large, SHARED, worth(large, "a", [0.0, 0.0, 1.0, 1.0]))
    assert places["c.weight", 1].tolist() == [2, 3, 6, 7]


def test_channels_that_only_the_small_network_ties_are_chosen_together() -> None:
    """By the sum of what they are worth, as their sum needs them in the same places."""
    large = follow(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), a=conv(3, 3), b=conv(3, 3), c=conv(6, 2))
    small = follow(
        lambda net, x: net.c(torch.cat([y := net.a(x), y + net.b(x)], 1)), a=conv(3, 1), b=conv(3, 1), c=conv(2, 2)
    )  # fmt: skip
    value = worth(large, "a", [3.0, 2.0, 0.0]) + worth(large, "b", [0.0, 2.0, 3.0])
    places = select(small, large, SHARED, value)
    assert places["a.weight", 0].tolist() == places["b.weight", 0].tolist() == [1]
    assert places["c.weight", 1].tolist() == [1, 4]


def test_the_strongest_heads() -> None:
    def heads(number: int) -> Channels:
        layers = {
            "qkv": conv(3, 7 * number),
            "proj": conv(3 * number, 4),
            "pe": conv(3 * number, 3 * number, 3 * number),
        }
        if number == 2:
            return follow(attention, **layers)

        def one(net: Any, x: Tensor) -> Tensor:
            q, k, v = net.qkv(x).view(1, 1, 7, 64).split([2, 2, 3], dim=2)
            out = v @ (q.transpose(-2, -1) @ k).softmax(-1).transpose(-2, -1)
            values: Tensor = net.proj(out.view(1, 3, 8, 8) + net.pe(v.reshape(1, 3, 8, 8)))
            return values

        return follow(one, **layers)

    large = heads(2)
    # what queries and keys are worth does not count: 9 for the first head's, 1 for each value of the second's
    value = worth(large, "qkv", [9.0] * 2 + [9.0] * 2 + [0.0] * 3 + [0.0] * 4 + [1.0] * 3)
    places = select(heads(1), large, ["qkv.weight", "proj.weight", "pe.weight"], value)
    assert places["qkv.weight", 0].tolist() == list(range(7, 14))
    assert places["proj.weight", 1].tolist() == places["pe.weight", 0].tolist() == [3, 4, 5]


def test_outputs_are_taken_whole_or_not_at_all() -> None:
    small, large = (follow(lambda net, x: net.a(x), a=conv(3, size)) for size in (2, 4))
    assert select(small, large, SHARED, torch.ones(large.count))["a.weight", 0].tolist() == [-1, -1]
    assert select(large, large, SHARED, torch.ones(large.count))["a.weight", 0].tolist() == [0, 1, 2, 3]


def test_larger_between_layers_is_refused_and_inside_of_one_left() -> None:
    with pytest.raises(InputError, match=r"^a.weight: the student's has 5 channels, the teacher's 2: only"):
        select(residual(5), residual(2), SHARED, torch.ones(99))
    small, large = (
        follow(lambda net, x: net.a(x), a=Sequential(Sequential(conv(3, size), conv(size, 2)))) for size in (4, 3)
    )
    found = select(small, large, ["a.0.0.weight", "a.0.1.weight"], torch.ones(large.count))
    assert found.keys() == {("a.0.0.weight", 1), ("a.0.1.weight", 0)}


def test_what_would_have_to_come_from_groups_of_several_sizes_has_no_place() -> None:
    large = follow(lambda net, x: net.c(torch.cat([net.a(x), net.b(x)], 1)), a=conv(3, 3), b=conv(3, 4), c=conv(7, 2))
    small = follow(
        lambda net, x: net.c(torch.cat([y := net.a(x), y + net.b(x)], 1)), a=conv(3, 2), b=conv(3, 2), c=conv(4, 2)
    )  # fmt: skip
    found = select(small, large, SHARED, torch.ones(large.count))
    assert found.keys() == {("a.weight", 1), ("b.weight", 1), ("c.weight", 0), ("c.bias", 0)}


def test_unknown_channels_have_no_place() -> None:
    nets = [follow(lambda net, x: net.b(net.a(x).cumsum(1)), a=conv(3, n), b=conv(n, 2)) for n in (2, 4)]
    assert ("b.weight", 1) not in select(*nets, SHARED, torch.ones(99))


@pytest.mark.parametrize(
    ("size", "full", "places"), [(2, 4, [0, 2]), (3, 4, [0, 1, 2]), (3, 3, [0, 1, 2]), (2, 5, [0, 2])]
)
def test_evenly(size: int, full: int, places: list[int]) -> None:
    assert evenly(size, full).tolist() == places


# ---- channels that tell different things


def test_of_two_alike_one_is_taken_and_the_weaker_other_before_the_copy() -> None:
    signals = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 2.0, 1.0])
    copies = torch.cat([signals[:, :1], signals[:, :1] * 1.01, signals[:, 1:2], signals[:, 2:]], 1).double()
    found = telling(copies.T @ copies, 3).tolist()
    assert found == [1, 2, 3]  # the better one of the copies, then what is new
    assert len(telling(copies.T @ copies, 4)) == 3  # the fourth says nothing new


def test_a_channel_that_tells_of_many_comes_before_a_stronger_one_that_tells_of_itself() -> None:
    basis = torch.linalg.qr(torch.randn(50, 5, generator=torch.Generator().manual_seed(1))).Q.double()
    shared = basis[:, :1]
    group = torch.cat([shared + 0.3 * basis[:, i : i + 1] for i in range(1, 4)], 1)
    signals = torch.cat([1.2 * basis[:, 4:], group], 1)
    assert telling(signals.T @ signals, 1).tolist()[0] > 0


def test_the_selection_takes_what_tells_the_most() -> None:
    large = residual(4)
    value = worth(large, "a", [4.0, 4.0, 1.0, 0.5])
    signals = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).double()
    carried = torch.cat([2 * signals[:, [0, 0]], signals[:, 1:2], 0.5 * signals[:, 2:]], 1)  # the strongest twice
    places = select(residual(2), large, SHARED, value, lambda classes: carried.T @ carried)
    assert places["a.weight", 0].tolist() == [0, 2]
    assert places["c.weight", 1].tolist() == [0, 2, 4, 6]
    everything = select(residual(4), large, SHARED, value, lambda classes: carried.T @ carried)
    assert everything["a.weight", 0].tolist() == [0, 1, 2, 3]  # copies fill what room is left
