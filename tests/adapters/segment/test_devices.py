"""Two processes train one U-Net: Lightning's own launcher, on the CPU."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from distill.scenes import write_scenes

pytestmark = pytest.mark.slow


def test_two_processes_leave_one_run(tmp_path):
    data = write_scenes(tmp_path / "scenes", train=12, val=5, size=64).with_name("semantic.yaml")
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import distill
        from distill.adapters.segment import runs

        runs._devices = lambda *_: {{"accelerator": "cpu", "devices": 2, "strategy": "ddp"}}
        setting = dict(data={str(data)!r}, device="cpu", batch=2, imgsz=32, workers=0, project={str(tmp_path)!r})
        result = distill.train(student="attention-unet:2", name="run", gates="truth", epochs=2, **setting)
        print("SCORE", result.score)
        """)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("SCORE") == 1 and done.stdout.count("epoch 2/2") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "scenes", "train.py"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    rows = (tmp_path / "run" / "results.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/dice")
    measured = max(float(row.split(",")[column]) for row in rows[1:])
    # five images over two processes: one is seen twice, so the two figures may differ by what it is worth
    assert manifest["finished"] and np.isclose(manifest["after"]["metrics"]["dice"], measured, atol=0.05)
