import pytest, sys
from pathlib import Path
from collections.abc import Callable
PICO = str(Path(__file__).resolve().parents[2] / "configs" / "models" / "yolo11-pico.yaml")
CASES = {
 "detect": ("yolo11n.yaml", PICO, {}),
 "segment": ("yolo11n-seg.yaml", "yolo11n-seg.yaml", {}),
 "pose": ("yolo11n-pose.yaml", "yolo11n-pose.yaml", {"kpt_shape":[4,3]}),
 "obb": ("yolo11n-obb.yaml","yolo11n-obb.yaml", {}),
 "semantic": ("yolo26n-sem.yaml","yolo26n-sem.yaml", {}),
 "classify": ("yolo11n-cls.yaml","yolo11n-cls.yaml", {}),
}
@pytest.mark.parametrize("task", CASES)
def test_t(task, data, checkpoint, train, watched):
    t, s, k = CASES[task]
    r = train(teacher=checkpoint(t, task, nc=2 if task=="classify" else 6, **k), student=s, data=str(data[task]))
    print(r)
    print(r.table.read_text())
