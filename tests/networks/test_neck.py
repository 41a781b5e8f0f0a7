"""A gated concatenation: at first that of a plain one, then what its gate makes of the skip; and how it is stored."""

import copy

import pytest
import torch
from torch import nn

from distill.attention.maps import AttentionMap
from distill.attention.taps import Taps
from distill.networks.neck import GatedConcat


def layer(skip=4, gating=6, moved=True):
    torch.manual_seed(0)
    made = GatedConcat(skip, gating)
    if moved:
        nn.init.uniform_(made.gate.psi.weight, -1, 1)
    return made


def inputs(size=(8, 12)):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, *size, generator=generator) for channels in (6, 4)]


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_it_starts_as_a_plain_concatenation(size):
    gating, skip = inputs(size)
    torch.testing.assert_close(layer(moved=False)([gating, skip]), torch.cat([gating, skip], 1), rtol=1e-6, atol=0)


def test_the_skip_is_gated_and_what_steers_it_is_not():
    module, (gating, skip) = layer(), inputs()
    with Taps(module, ["gate.alpha"]) as taps:
        output = module([gating, skip])
        alpha = AttentionMap.read(taps.read()["gate.alpha"], "gate.alpha", "gate").values
    assert alpha.shape == (2, 8, 12)  # on the skip's own grid
    assert alpha.std() > 0.01  # it matters what passes where
    assert torch.equal(output[:, :6], gating)
    torch.testing.assert_close(output[:, 6:], skip * alpha.unsqueeze(1) / torch.sigmoid(torch.tensor(3.0)))


def test_the_skip_passes_or_not_as_the_other_part_says():
    module, (gating, skip) = layer(), inputs()
    other = gating.clone()
    other[..., 3, 5] += 5
    differs = (module([gating, skip]) != module([other, skip]))[:, 6:].any(1)
    assert differs[:, 3, 5].all() and differs.sum() == len(skip)


def test_its_parts_are_not_interchangeable():
    gating, skip = inputs()
    with pytest.raises(ValueError, match=r"skip must be \(B, 4, H, W\)"):
        layer()([skip, gating])


def test_it_is_copied_and_stored_whole(tmp_path):
    module, features = layer(), inputs()
    torch.save(module, tmp_path / "layer.pt")
    for other in (copy.deepcopy(module), torch.load(tmp_path / "layer.pt", weights_only=False)):
        assert torch.equal(other(features), module(features))


def test_torchs_restricted_loader_knows_it(tmp_path):
    """Only torch's own layers are left for the caller to allow, as Ultralytics does."""
    torch.save(layer(), tmp_path / "layer.pt")
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "layer.pt")
    assert all(name.startswith("torch.nn.modules.") for name in unknown)  # none where another test has allowed them
    with torch.serialization.safe_globals([nn.Conv2d, nn.Sigmoid, nn.Identity]):
        assert isinstance(torch.load(tmp_path / "layer.pt", weights_only=True), GatedConcat)


def test_half_precision_starts_as_a_plain_concatenation_too():
    features = [part.half() for part in inputs()]
    assert torch.equal(layer(moved=False).half()(features), torch.cat(features, 1))
