"""tools/make_cases.py: small sets cut out of larger ones, and boxes from masks."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

TOOL = Path(__file__).resolve().parents[1] / "tools" / "make_cases.py"


def image(file, values=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8) if values is None else values).save(file)


@pytest.fixture
def sets(tmp_path):
    """Sets of the three names, with 110 training images and two that validate."""
    for name in ("raccoon", "deeppcb", "nuclei"):
        folder = tmp_path / "data" / name
        for part, count in (("train", 110), ("val", 2)):
            for i in range(count):
                image(folder / "images" / part / f"{i:03}.png")
                if name != "nuclei":
                    label = folder / "labels" / part / f"{i:03}.txt"
                    label.parent.mkdir(parents=True, exist_ok=True)
                    label.write_text("0 0.5 0.5 0.2 0.2\n")
                    continue
                mask = np.zeros((20, 40), np.uint8)
                mask[2:10, 4:12] = mask[12:16, 20:30] = 1
                mask[18, 38] = 1  # a speck
                image(folder / "masks" / part / f"{i:03}.png", mask)
        said = {"train": "images/train", "val": "images/val", "names": ["background", "cell"]}
        said |= {"masks_dir": "masks"} if name == "nuclei" else {"names": ["thing"]}
        (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return tmp_path / "data"


def test_it_cuts_the_sets_and_nobody_validates_on_what_trains(sets, tmp_path, monkeypatch, capsys):
    out = tmp_path / "cases"
    monkeypatch.setattr(sys, "argv", ["make_cases.py", "--data", str(sets), "--out", str(out)])
    runpy.run_path(str(TOOL), run_name="__main__")
    for name, count in (("raccoon", 20), ("deeppcb", 88), ("nuclei", 40)):  # 88 of 110 do not validate
        lists = {
            (kind, part): (out / name / kind / f"{part}.txt").read_text().split()
            for kind in ("full", "report", "tune")
            for part in ("train", "val")
        }
        assert len(lists["full", "train"]) == 110 and len(lists["tune", "val"]) == 22
        assert len(lists["tune", "train"]) == count and not {*lists["tune", "train"]} & {*lists["tune", "val"]}
        assert {*lists["tune", "val"]} < {*lists["full", "train"]} and lists["report", "val"] == lists["full", "val"]
        data = yaml.safe_load((out / name / "tune" / "data.yaml").read_text())
        assert data["names"] == {0: "cell" if name == "nuclei" else "thing"}
    assert "raccoon/tune/data.yaml: 20 training, 22 validation images" in capsys.readouterr().out
    lines = (out / "nuclei" / "labels" / "train" / "000.txt").read_text().splitlines()
    assert lines == ["0 0.200000 0.300000 0.200000 0.400000", "0 0.625000 0.700000 0.250000 0.200000"]
