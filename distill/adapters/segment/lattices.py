"""Where the cells of a U-Net's layers lie, by arithmetic."""

from __future__ import annotations

from distill.adapters.segment.networks import layers_of
from distill.attention.geometry import Lattice
from distill.attention.layers import LayerInfo
from distill.networks.unet import UNet


def layers_of_whole_cells(module: UNet) -> list[LayerInfo]:
    """Every layer, for an input whose sides all strides divide, so that the strides are whole numbers."""
    steps = module.pool.kernel_size
    assert isinstance(steps, tuple)
    levels = len(module.encoder)
    return layers_of(module, tuple(int(step) ** levels for step in steps))


def exact_lattice(layer: LayerInfo) -> Lattice:
    """The lattice of one of these layers: cell i covers [i stride, (i + 1) stride), its centre is in the middle.

    Convolutions of 3 with padding 1 stay on their grid, pooling has the stride as its kernel, no padding, and rounds
    up, so an odd side only cuts the last cell short; so has a gate's theta. Hence this holds to the pixel, for any size
    and any weights, where measuring by mirroring would err by what training does to the kernels, and would know nothing
    on grids of a few cells.
    """
    return Lattice(tuple(step / 2 for step in layer.stride), layer.stride)
