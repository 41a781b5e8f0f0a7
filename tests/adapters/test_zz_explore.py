import pytest, sys
from pathlib import Path
PICO = str(Path(__file__).resolve().parents[2] / "configs" / "models" / "yolo11-pico.yaml")
FAM = ["yolov8n.yaml","yolo12n.yaml","yolo26n.yaml","yolov10n.yaml"]
@pytest.mark.parametrize("t", FAM)
def test_f(t, checkpoint, train, watched):
    r = train(teacher=checkpoint(t))
    print(r)
    print(r.table.read_text())
def test_r(checkpoint, train, watched):
    r = train(teacher=checkpoint("rtdetr-l.yaml", "rtdetr"))
    print(r)
    print(r.table.read_text())
def test_s(checkpoint, train, teacher):
    r = train(teacher=teacher, student="yolov8n-rtdetr.yaml")
    print(r)
    print(r.table.read_text())
def test_s26(checkpoint, train, teacher):
    r = train(teacher=teacher, student="yolo26n.yaml")
    print(r)
    print(r.table.read_text())
def test_s10(checkpoint, train, teacher):
    r = train(teacher=checkpoint("yolo26n.yaml"), student="yolov10n.yaml")
    print(r)
    print(r.table.read_text())
