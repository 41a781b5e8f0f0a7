"""The trainer's own arguments of a U-Net."""

import pytest

from distill.adapters.segment.options import OPTIMIZERS, READERS, Options, read_options


def test_nothing_given_is_the_defaults():
    assert read_options({}) == Options() and Options().epochs == 100 and Options().lr0 == 1e-3
    assert read_options(dict.fromkeys(READERS)) == Options()  # None: not given
    assert set(READERS) == set(Options.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": "7", "batch": 3}, {"epochs": 7, "batch": 3}),
        ({"imgsz": 32}, {"imgsz": (32,)}),
        ({"imgsz": "32,48,40"}, {"imgsz": (32, 48, 40)}),
        ({"imgsz": "[32, 48]"}, {"imgsz": (32, 48)}),
        ({"imgsz": "(32, 48)"}, {"imgsz": (32, 48)}),
        ({"imgsz": "32x48"}, {"imgsz": (32, 48)}),
        ({"imgsz": [32, 48]}, {"imgsz": (32, 48)}),
        ({"lr0": "1e-2"}, {"lr0": 0.01}),
        ({"optimizer": "sgd"}, {"optimizer": "SGD"}),
        ({"optimizer": "auto"}, {"optimizer": "AdamW"}),
        ({"workers": "0", "patience": 1}, {"workers": 0, "patience": 1}),
        ({"amp": "False"}, {"amp": False}),
        ({"amp": True}, {"amp": True}),
    ],
)
def test_loosely_typed_values(given, expected):
    assert read_options(given) == Options(**expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epochs", value) for value in (0, -1, 1.5, "x", True, "")),
        *(("batch", value) for value in (0, -1, "auto")),
        *(("imgsz", value) for value in (7, 0, "32,x", "16,16,16,16", "", [], "32,", -32)),
        *(("lr0", value) for value in (0, -1, "nan", "inf", "x", [1])),
        *(("optimizer", value) for value in ("RMSProp", 3, "")),
        *(("workers", value) for value in (-1, "x")),
        ("patience", 0),
        ("amp", "16"),
    ],
)
def test_a_value_out_of_range_names_its_key(key, value, refused):
    refused(lambda: read_options({key: value}), f"{key}=")


@pytest.mark.parametrize(("key", "hint"), [("epoch", "'epochs'"), ("lr", "'lr0'"), ("mosaic", "a U-Net takes epochs")])
def test_an_unknown_key_is_named_with_the_nearest(key, hint, refused):
    refused(lambda: read_options({key: 1}), f"{key}=:", hint)


def test_optimizers_are_torchs():
    import torch

    assert all(issubclass(getattr(torch.optim, name), torch.optim.Optimizer) for name in OPTIMIZERS)
