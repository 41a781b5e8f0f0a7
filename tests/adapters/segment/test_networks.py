"""U-Nets as they are named, and checkpoints: what is read back is what was written, and nothing in one can run."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from distill.adapters.segment.networks import DESCRIBED, build, description, layers_of, read_checkpoint
from distill.networks.unet import UNet

from .kit import TINY, checkpoint


def described(tmp_path, text):
    file = tmp_path / "net.yaml"
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return str(file)


# ---- names


@pytest.mark.parametrize(
    ("name", "first", "gated"),
    [("unet", 16, False), ("unet:8", 8, False), ("attention-unet", 16, True), ("attention-unet:16", 16, True)],
)
def test_a_name_and_its_first_width(name, first, gated):
    assert description(name) == {"channels": [first, 2 * first, 4 * first, 8 * first, 16 * first], "gated": gated}


@pytest.mark.parametrize("name", ["unet:", "unet:0", "unet:-8", "unet:x", "attention-unet:1.5", "unet:8:4"])
def test_a_width_that_is_none(name, refused):
    refused(lambda: description(name), f"--student {name}", "number of channels")


def test_a_yaml_with_every_entry(tmp_path):
    entries = {
        "channels": [2, 3, 4],
        "gated": "all",
        "deep_supervision": True,
        "upsampling": "transposed",
        "heads": 2,
        "form": "common",
        "stride": [2, 1, 2],
    }
    assert set(entries) == set(DESCRIBED)
    found = description(described(tmp_path, {"unet": entries}))
    assert found == entries
    network = build({**found, "in_channels": 1, "classes": 2, "dims": 3})
    assert {"E1", "E2", "E3", "D1", "D2", "G1.1", "G1.2", "G2.1", "G2.2"} <= set(network.roles)
    assert network.pool.kernel_size == (2, 1, 2)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("unet: 8", "'channels'"),
        ("unet: {gated: true}", "'channels'"),
        ("unet: {channels: [2, 3], classes: 4}", "classes: the data says that"),
        ("unet: {channels: [2, 3], gate: true}", "nearest: 'gated'"),
        ("unet: [", "not readable"),
        ("unet: {channels: [2, 3]\n  x", "not readable"),
    ],
)
def test_a_yaml_that_is_wrong(tmp_path, refused, text, part):
    refused(lambda: description(described(tmp_path, text)), "--student", "net.yaml", part)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": [4]}, {"channels": "8"}, {"gated": 7}, {"heads": 0}, {"form": "x"}, {"stride": [2]}, {"x": 1}],
)
def test_settings_that_are_none_of_a_unets(refused, wrong):
    refused(lambda: build({"in_channels": 1, "classes": 2, "channels": TINY, **wrong}), "--student")


def test_weights_are_drawn_from_the_seed_and_disturb_nothing():
    settings = {"in_channels": 1, "classes": 2, "channels": TINY}
    state = torch.get_rng_state()
    one, two, other = (build(settings, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_layers_have_the_roles_and_strides(tmp_path):
    network = build({"in_channels": 3, "classes": 2, "channels": TINY, "gated": True}).train()
    layers = {role: layer for layer in layers_of(network, (16, 24)) for role in layer.roles}
    assert {"E1", "E2", "E3", "D1", "D2", "G2"} <= set(layers) and network.training
    assert layers["D2"].size == (8, 12) and layers["G2"].size == (4, 6) and layers["E3"].stride == (4, 4)


# ---- checkpoints


def test_a_checkpoint_gives_back_network_names_and_crop(tmp_path):
    file = checkpoint(tmp_path / "x.ckpt", seed=5, gated=True, heads=2)
    found = read_checkpoint(file, "--teacher")
    assert isinstance(found.module, UNet) and not found.module.training
    assert (found.names, found.crop, found.about["epoch"], found.path) == (("background", "cell"), (16, 16), 3, file)
    images = torch.randn(1, 3, 16, 16)
    expected = build({"in_channels": 3, "classes": 2, "dims": 2, "channels": TINY, "gated": True, "heads": 2}, 5)
    assert torch.equal(found.module(images), expected.eval()(images))


def test_a_checkpoint_of_a_run_under_way_is_read_too(tmp_path):
    """Lightning's names begin with that of the module's attribute, and beside weights stand its own entries."""
    raw = torch.load(checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    state = {f"network.{name}": tensor for name, tensor in raw["state_dict"].items()}
    torch.save({**raw, "state_dict": state, "epoch": 2, "optimizer_states": [{}]}, tmp_path / "last.ckpt")
    one, other = (read_checkpoint(tmp_path / name, "--teacher").module for name in ("x.ckpt", "last.ckpt"))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


class Evil:
    """What it does when it is unpickled: makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_does_not_run(tmp_path, refused, legacy):
    raw = torch.load(checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    raw["distill"]["more"] = Evil(tmp_path / "ran")
    torch.save(raw, tmp_path / "evil.ckpt", _use_new_zipfile_serialization=not legacy)
    message = refused(
        lambda: read_checkpoint(tmp_path / "evil.ckpt", "--teacher"), "--teacher", "evil.ckpt", "not readable"
    )
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in message  # torch's own advice is to switch the protection off


def test_files_that_are_no_checkpoint(tmp_path, refused):
    good = checkpoint(tmp_path / "x.ckpt").read_bytes()
    files = {
        "empty": b"",
        "text": b"hello world\n",
        "bytes": bytes(range(256)) * 8,
        "pickle": b"\x80\x04K\x01.",
        "half": good[: len(good) // 2],
        "most": good[:-10],
    }
    for name, content in files.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        refused(lambda name=name: read_checkpoint(tmp_path / f"{name}.ckpt", "--student"), "--student", f"{name}.ckpt")
    refused(lambda: read_checkpoint(tmp_path / "nowhere.ckpt", "--student"), "nowhere.ckpt", "no such file")
    refused(lambda: read_checkpoint(tmp_path, "--student"), "no such file")


def test_a_checkpoint_of_a_detector(tmp_path, refused):
    from ultralytics.nn.tasks import DetectionModel

    torch.save({"model": DetectionModel("yolo11n.yaml", verbose=False)}, tmp_path / "best.pt")
    refused(lambda: read_checkpoint(tmp_path / "best.pt", "--teacher"), "--teacher", "best.pt")


@pytest.mark.parametrize("content", [[1], {}, {"state_dict": {}}, {"distill": 3}, {"distill": {"names": []}}])
def test_something_that_is_not_a_unets(tmp_path, refused, content):
    torch.save(content, tmp_path / "x.ckpt")
    refused(lambda: read_checkpoint(tmp_path / "x.ckpt", "--teacher"), "--teacher", "x.ckpt", "not of a U-Net")


@pytest.mark.parametrize("spoil", ["names", "crop", "state_dict", "weights", "shape", "network"])
def test_a_unets_checkpoint_that_lacks_something(tmp_path, refused, spoil):
    raw = torch.load(checkpoint(tmp_path / "x.ckpt"), weights_only=True)
    if spoil == "state_dict":
        del raw["state_dict"]
    elif spoil == "weights":
        raw["state_dict"].pop("head.bias")
    elif spoil == "shape":
        raw["distill"]["network"]["classes"] = 5
    elif spoil == "network":
        raw["distill"]["network"] = {"channels": "many"}
    else:
        del raw["distill"][spoil]
    torch.save(raw, tmp_path / "x.ckpt")
    refused(lambda: read_checkpoint(tmp_path / "x.ckpt", "--teacher"), "--teacher", "x.ckpt")


def test_a_file_below_home_is_meant_by_a_tilde_nowhere(tmp_path, refused):
    refused(lambda: read_checkpoint(Path("~/x.ckpt"), "--teacher"), "--teacher ~/x.ckpt: no such file")
