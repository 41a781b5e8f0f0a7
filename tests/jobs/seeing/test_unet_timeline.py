"""The timeline of a U-Net: what a run kept becomes a page, a film, curves, and volumes with an axis of epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

nibabel = pytest.importorskip("nibabel", reason="U-Nets need the extra: pip install 'attention-distill[segment]'")
pytest.importorskip("monai", reason="U-Nets need the extra: pip install 'attention-distill[segment]'")

import distill  # noqa: E402
from distill.attention.geometry import Lattice  # noqa: E402
from distill.cli import main  # noqa: E402
from distill.errors import InputError  # noqa: E402
from distill.jobs.seeing.timeline import draw_timeline, read_timeline  # noqa: E402
from distill.view.scale import Scale, scales  # noqa: E402
from tests.adapters.segment import kit  # noqa: E402

SMALL = {"batch": 4, "imgsz": 8, "workers": 0, "device": "cpu", "epochs": 2}
PLANES = ["axial", "coronal", "sagittal"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> distill.TrainResult:
    """Two epochs on volumes of 12x10x8 voxels, two of which validate; its maps were kept and drawn."""
    folder = tmp_path_factory.mktemp("finished")
    data = kit.volumes(folder / "data", count=10)
    (folder / "net.yaml").write_text("unet: {channels: [2, 3, 4], gated: true}")
    given = {"student": str(folder / "net.yaml"), "data": str(data), "project": str(folder / "runs")}
    return distill.train(**given, heatmaps="1,2", **SMALL)


@pytest.fixture
def run(finished: distill.TrainResult, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def test_everything_is_drawn_when_the_run_ends(finished: distill.TrainResult) -> None:
    folder = finished.folder / "heatmaps"
    volumes = [f"alpha_G2_v{n}.nii.gz" for n in (4, 9)]
    drawn = {"report.html", "timeline.gif", "curves.png", "alphas.json", *volumes}
    assert {file.name for file in folder.iterdir()} - {f"epoch000{n}.npz" for n in range(3)} == drawn
    with Image.open(folder / "timeline.gif") as film:
        assert film.n_frames == 3
    page = (folder / "report.html").read_text()
    assert '"epochs":[0,1,2]' in page and "v4-axial" in page
    assert Image.open(finished.folder / "curves.png").size[0] > 500
    for line in ("curves.png", "heatmaps/report.html", "95 % of the last epoch's in epoch"):
        assert line in str(finished)
    assert finished.manifest["after"]["epoch_95"] in (1, 2)


def test_volumes_have_the_epochs_on_the_fourth_axis(finished: distill.TrainResult) -> None:
    folder = finished.folder / "heatmaps"
    about = json.loads((folder / "alphas.json").read_text())
    assert about["epochs"] == [0, 1, 2] and list(about["volumes"]) == ["v4", "v9"]
    found = nibabel.load(folder / "alpha_G2_v9.nii.gz")
    assert found.shape == (12, 10, 8, 3)
    np.testing.assert_allclose(found.affine, nibabel.load(about["volumes"]["v9"]).affine)
    kept = np.load(folder / "epoch0001.npz")["student_G2_1"]  # (3, 3, 2)
    corner = found.get_fdata()[0, 0, 0, 1]  # half a cell outside the first centre: constant there
    assert corner == pytest.approx(kept[0, 0, 0], abs=3e-5)
    assert found.get_fdata()[..., 1].mean() != pytest.approx(found.get_fdata()[..., 2].mean(), abs=1e-6)


def test_an_exhibit_for_each_epoch_of_the_same_planes(finished: distill.TrainResult) -> None:
    exhibits, epochs = read_timeline(finished.folder)
    assert epochs == [0, 1, 2]
    for exhibit in exhibits:
        assert [sample.name for sample in exhibit.samples] == [f"v{n}-{plane}" for n in (4, 9) for plane in PLANES]
        assert exhibit.classes == ("background", "front", "back")
        assert [(network.key, network.title) for network in exhibit.networks] == [("student", "net.yaml")]
        (row,) = exhibit.rows
        assert (row.name, row.kind) == ("G2", "gate")
        assert row.sides["student"].lattice == Lattice((2, 2, 2), (4, 4, 4))
        for before, sample in zip(exhibits[0].samples, exhibit.samples):
            assert (before.picture == sample.picture).all() and before.frame == sample.frame
            assert (before.masks["labels"] == sample.masks["labels"]).all()
            assert sample.masks["student"].shape == sample.picture.shape[:2]
    assert any((a.masks["student"] != b.masks["student"]).any() for a, b in zip(*(e.samples for e in exhibits[::2])))


def test_figures_are_of_whole_volumes_and_gates_on_one_scale(finished: distill.TrainResult) -> None:
    exhibits, _ = read_timeline(finished.folder)
    kept = [np.load(finished.folder / "heatmaps" / f"epoch000{n}.npz") for n in range(3)]
    for exhibit, arrays in zip(exhibits, kept):
        means = [arrays[f"student_G2_{number}"].mean() for number in range(2)]
        assert [row["alpha_mean"] for row in exhibit.numbers.maps] == pytest.approx(means)
        assert [row["image"] for row in exhibit.numbers.maps] == ["v4", "v9"]
        assert exhibit.samples[0].dice["student"]["front"] == pytest.approx(arrays["student_dice"][0][0])
    assert scales(exhibits, "shared")["G2"].maps == Scale.gate()


def test_a_class_that_an_image_lacks_leaves_no_epoch_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its Dice is kept as NaN where it is rightly not found; of the other image neither class is there."""
    for file in (run / "heatmaps").glob("epoch*.npz"):
        arrays = dict(np.load(file))
        arrays["student_dice"] = np.array([[0.25, np.nan], [np.nan, np.nan]], arrays["student_dice"].dtype)
        np.savez(file, **arrays)
    exhibits, epochs = read_timeline(run)
    assert epochs == [0, 1, 2] and capsys.readouterr().err == ""
    for exhibit in exhibits:
        first, last = exhibit.samples[0], exhibit.samples[-1]
        assert first.dice == {"student": {"front": 0.25}} and last.dice == {} and last.verdicts == {}
        assert first.verdicts["student"] == "Dice 0.250 of the whole volume"
    draw_timeline(run)


def test_the_page_tells_each_epochs_dice(finished: distill.TrainResult) -> None:
    page = (finished.folder / "heatmaps" / "report.html").read_text()
    block = json.loads(page.split('id="image-3">')[1].split("</script>")[0])  # the first plane of the second volume
    for number, epoch in enumerate(block["epochs"]):
        kept = np.load(finished.folder / "heatmaps" / f"epoch000{number}.npz")["student_dice"][1]
        assert list(epoch["dice"]["student"].values()) == pytest.approx(kept.tolist())


def test_it_can_be_drawn_again_and_while_the_run_is_under_way(run: Path) -> None:
    (run / "manifest.json").write_text(
        (run / "manifest.json").read_text().replace('"finished": true', '"finished": false')
    )
    (run / "heatmaps" / "epoch0002.npz").unlink()
    shutil.rmtree(run / "weights")
    files = draw_timeline(run)
    assert run / "curves.png" in files and all(file.is_file() for file in files)
    assert json.loads((run / "heatmaps" / "alphas.json").read_text())["epochs"] == [0, 1]
    (run / "results.csv").unlink()  # before the first epoch has ended
    (run / "curves.png").unlink()
    assert run / "curves.png" not in draw_timeline(run)


def test_images_that_are_gone_or_changed(run: Path) -> None:
    file = run / "heatmaps" / "epoch0000.npz"
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "student_mask_1": arrays["student_mask_1"][:-1]})
    with pytest.raises(InputError, match="another image than the one that was looked at"):
        read_timeline(run)
    np.savez(file, **{**arrays, "images": np.array(["nowhere/v4.nii.gz", "nowhere/v9.nii.gz"])})
    with pytest.raises(InputError, match="gone, such as nowhere/v4.nii.gz: put the data set back"):
        read_timeline(run)


def test_an_epoch_that_diverged_is_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "heatmaps" / "epoch0001.npz"
    arrays = dict(np.load(file))
    arrays["student_G2_0"][0, 0, 0] = np.nan
    np.savez(file, **arrays)
    assert read_timeline(run)[1] == [0, 2]
    assert "epoch 1 is left out" in capsys.readouterr().err


def test_a_run_without_maps_has_its_curves(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "heatmaps")
    (run / "curves.png").unlink()
    assert main(["timeline", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == [str(run / "curves.png")] and (run / "curves.png").is_file()
    assert "no maps were kept: train with --heatmaps" in captured.err


def test_pictures_with_a_teacher(tmp_path: Path) -> None:
    data = kit.pictures(tmp_path / "data", train=4, val=3)
    (tmp_path / "net.yaml").write_text("unet: {channels: [6, 8], gated: all}")
    teacher = kit.checkpoint(tmp_path / "teacher.ckpt", channels=[6, 8])
    given = {"student": str(tmp_path / "net.yaml"), "data": str(data), "teacher": str(teacher), "layers": "D1"}
    result = distill.train(**given, project=str(tmp_path / "runs"), heatmaps="2", **SMALL)
    exhibits, epochs = read_timeline(result.folder)
    assert epochs == [0, 2]
    sides = {row.name: list(row.sides) for row in exhibits[0].rows}
    assert sides == {"G1": ["student"], "D1": ["teacher", "student"]}  # this teacher has no gate
    assert [network.key for network in exhibits[0].networks] == ["teacher", "student"]
    assert set(exhibits[0].samples[0].masks) == {"labels", "teacher", "student"}
    assert exhibits[0].numbers.summary["D1"]["student"]["distance"].n == 3
    first, last = (exhibit.samples[0].maps["D1"] for exhibit in exhibits)
    assert (first["teacher"] == last["teacher"]).all() and (first["student"] != last["student"]).any()
    assert not list((result.folder / "heatmaps").glob("*.nii*")) and (result.folder / "heatmaps/report.html").is_file()
