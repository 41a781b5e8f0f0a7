"""Taps live inside their `with` block only; reading empties them; a tap that heard nothing is an error."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from distill.attention.taps import Taps
from distill.errors import InputError, SilentTapError


class Toy(nn.Module):
    """`idle` never runs, `pair` answers with a tuple, `pooled` with a vector, `twice` runs two times."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.idle = nn.Conv2d(4, 4, 1)
        self.pair = Split()
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.twice = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.body(self.stem(x))
        left, right = self.pair(x)
        return self.twice(self.twice(torch.cat([left, right], 1))), self.pooled(x)


class Split(nn.Module):
    def forward(self, x):
        return x.chunk(2, 1)


def hooks(module):
    return sum(len(m._forward_hooks) for m in module.modules())


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy()


IMAGES = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def test_hooks_exist_inside_the_block_only(toy):
    taps = Taps(toy, ["stem", "body.1"])
    assert hooks(toy) == 0
    with taps as entered:
        assert entered is taps
        assert hooks(toy) == len(toy.stem._forward_hooks) + len(toy.body[1]._forward_hooks) == 2
    assert hooks(toy) == 0


def test_hooks_are_gone_after_an_exception_in_the_block_or_in_the_network(toy):
    with pytest.raises(KeyError), Taps(toy, ["stem"]):
        raise KeyError
    assert hooks(toy) == 0
    with pytest.raises(RuntimeError), Taps(toy, ["stem", "twice"]):
        toy(torch.rand(1, 5, 8, 8))  # five channels: the first convolution refuses
    assert hooks(toy) == 0


def test_another_hook_on_the_same_module_stays(toy):
    toy.stem.register_forward_hook(lambda *_: None)
    with Taps(toy, ["stem"]):
        assert hooks(toy) == 2
    assert hooks(toy) == 1


def test_taps_give_the_outputs_themselves_in_the_order_asked_for_each_once(toy):
    with Taps(toy, ["body.1", "stem", "body.1"]) as taps:
        toy(IMAGES)
        features = taps.read()
    assert list(features) == ["body.1", "stem"]
    assert torch.equal(features["stem"], toy.stem(IMAGES))
    features["body.1"].sum().backward()  # still in the graph
    assert toy.stem.weight.grad.any()


def test_reading_empties(toy):
    with Taps(toy, ["stem"]) as taps:
        toy(IMAGES)
        taps.read()
        with pytest.raises(SilentTapError, match="'stem'"):
            taps.read()
        toy(IMAGES + 1)
        assert torch.equal(taps.read()["stem"], toy.stem(IMAGES + 1))


def test_what_was_left_unread_is_not_seen_by_the_next_block(toy):
    taps = Taps(toy, ["stem"])
    with taps:
        toy(IMAGES)
    with taps, pytest.raises(SilentTapError):
        taps.read()


def test_a_silent_tap_is_named_with_its_type(toy):
    with Taps(toy, ["stem", "idle"]) as taps:
        toy(IMAGES)
        with pytest.raises(SilentTapError, match=r"layer 'idle' \(Conv2d\) did not run"):
            taps.read()


def test_an_output_that_is_no_feature_map_is_named_with_what_it_is(toy):
    for layer, what in (("pair", "a tuple"), ("pooled", r"a tensor \(2, 4\)")):
        with Taps(toy, [layer]) as taps:
            toy(IMAGES)
            with pytest.raises(SilentTapError, match=f"layer '{layer}' gives {what}"):
                taps.read()


def test_an_output_that_was_overwritten_is_an_error_and_not_the_next_layer_s_map():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU(inplace=True), nn.Conv2d(4, 4, 1))
    for mode in (torch.enable_grad, torch.no_grad):
        with mode(), Taps(network, ["1"]) as taps:
            network(IMAGES)
            with pytest.raises(SilentTapError, match="output of layer '1' is overwritten in place"):
                taps.read()
        with mode(), Taps(network, ["0", "2", "3"]) as taps:
            network(IMAGES)
            assert len(taps.read()) == 3


def test_taps_work_under_inference_mode(toy):
    with torch.inference_mode(), Taps(toy, ["stem"]) as taps:
        toy(IMAGES)
        assert torch.equal(taps.read()["stem"], toy.stem(IMAGES))


def test_a_module_that_runs_twice_keeps_its_last_output(toy):
    with Taps(toy, ["twice"]) as taps:
        last, _ = toy(IMAGES)
        assert taps.read()["twice"] is last


def test_an_unknown_layer_is_named_with_the_nearest(toy):
    with pytest.raises(InputError, match=r"layer 'body.7' not found; nearest: .*'body.1'"):
        Taps(toy, ["stem", "body.7"])
    assert hooks(toy) == 0


def test_one_object_serves_again_and_again_with_the_same_hook_functions(toy):
    taps = Taps(toy, ["stem"])
    seen = []
    for shift in range(3):
        with taps:
            seen += toy.stem._forward_hooks.values()
            toy(IMAGES + shift)
            assert torch.equal(taps.read()["stem"], toy.stem(IMAGES + shift))
        assert hooks(toy) == 0
    assert seen[0] is seen[1] is seen[2]  # torch.compile has burnt the first into its graph


def test_entering_twice_leaves_no_hook_behind(toy):
    taps = Taps(toy, ["stem"])
    with taps:
        with taps:
            toy(IMAGES)
            assert taps.read()["stem"].shape == (2, 4, 8, 6)
        assert hooks(toy) <= 1
    assert hooks(toy) == 0


@pytest.mark.slow  # the compiler needs most of a minute
def test_taps_work_under_torch_compile(toy):
    taps = Taps(toy, ["stem", "body.1"])
    plain = torch.compile(toy)
    for shift in range(3):
        with taps:
            plain(IMAGES + shift)
            features = taps.read()
        assert torch.allclose(features["stem"], toy.stem(IMAGES + shift), atol=1e-5)
        toy.zero_grad()
        features["body.1"].square().sum().backward()
        assert toy.stem.weight.grad.any()
    with Taps(toy, ["stem"]) as late:  # added after the first compiled call: an error or the features, never silence
        plain(IMAGES)
        with suppress(SilentTapError):
            assert torch.allclose(late.read()["stem"], toy.stem(IMAGES), atol=1e-5)
