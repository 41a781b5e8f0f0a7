"""Networks and generators are left as they were found, after exceptions too."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from distill.modes import as_found, same_randomness


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()


def test_the_generators_of_python_numpy_and_torch_are_restored():
    random.gauss(0, 1), np.random.randn()  # each keeps a second normal number for the next call
    with same_randomness():
        expected = draw()
    for _ in range(2):
        with same_randomness():
            assert draw() == expected
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert draw() == expected


def test_the_generators_are_restored_after_an_exception():
    state = random.getstate(), torch.get_rng_state()
    with pytest.raises(KeyError), same_randomness():
        raise KeyError(draw())
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])


@pytest.fixture
def network():
    """In train mode, with a frozen BatchNorm in eval."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.Dropout()), nn.BatchNorm2d(4)).train()
    net[1][0].eval()
    return net


def test_modes_are_restored_module_by_module(network):
    before = [m.training for m in network.modules()]
    with as_found(network):
        network.eval()
    assert [m.training for m in network.modules()] == before == [True, True, True, False, True, True]


def test_a_network_found_in_eval_stays_in_eval(network):
    network.eval()
    with as_found(network):
        network.train()
    assert not any(m.training for m in network.modules())


def test_modes_are_restored_after_an_exception(network):
    before = [m.training for m in network.modules()]
    with pytest.raises(AttributeError), as_found(network):
        network.eval().missing()
    assert [m.training for m in network.modules()] == before
