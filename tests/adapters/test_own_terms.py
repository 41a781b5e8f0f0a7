"""A way of teaching that a user writes: through the public door alone, it is everywhere that ours are."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import distill
from distill.cli import main
from distill.errors import InputError
from distill.records import read_manifest

from .tiny import rows, same, weights

Train = Callable[..., distill.TrainResult]
ALONE: dict[str, Any] = {"layers": "none", "features": "none"}


class Nearness(distill.PairedTerm):
    """How far apart the attention maps are."""

    name = "bright"
    figures = ("gap",)
    power: float = 1.0

    def compare(self, student: Tensor, teacher: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        gap = (distill.attention_map(student) - distill.attention_map(teacher)).flatten(1).norm(dim=1).mean()
        return gap**self.power, {"gap": gap}


def test_it_is_in_the_proof_the_table_the_log_and_the_manifest(train: Train, teacher: Path) -> None:
    result = train(teacher=teacher, terms=[Nearness(layers=("P4",), share=0.3)], **ALONE)
    checks = "\n".join(result.manifest["checks"])
    assert "bright P4: loss" in checks and re.search(r"weight of bright: \S+, measured: 0\.3 of", checks)
    (row,) = rows(result.table)
    assert row["train/bright_P4"] > 0 and row["train/bright_gap_P4"] > 0 and row["train/weight_bright"] > 0
    assert "val/bright_P4" not in row
    planned = result.manifest["methods"]["bright"]
    assert [pair["name"] for pair in planned["pairs"]] == ["P4"] and planned["settings"]["power"] == 1.0
    before, after = (result.manifest[when]["attention"]["bright_gap_P4"] for when in ("before", "after"))
    (line,) = (line for line in str(result).splitlines() if line.startswith("bright_P4"))
    assert f"{before:.4f}" in line and f"{after:.4f}" in line
    assert "bright_P4  model" in "\n".join(str(result).splitlines()) or "bright_P4" in line


def test_it_teaches(train: Train, teacher: Path) -> None:
    """Steps along its gradient bring it down, beside a run in which it has next to no weight."""
    plainly: dict[str, Any] = {"optimizer": "SGD", "lr0": 0.1, "momentum": 0.0, **ALONE}
    gaps = []
    for weight in (1e-9, 10.0):
        manifest = train(
            teacher=teacher, terms=[Nearness(layers=("P3", "P4"), weight=weight)], name=f"w{weight}", **plainly
        ).manifest
        gaps.append([manifest["after"]["attention"][f"bright_gap_P{k}"] for k in (3, 4)])
        assert manifest["weights"] == {"bright": weight}
    assert sum(gaps[1]) < sum(gaps[0]) - 0.02, gaps


def test_a_run_goes_on_when_it_is_named_again(
    train: Train,
    teacher: Path,
    tmp_path: Path,
    cut_off: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [Nearness(power=2.0, share=0.4)]
    whole = train(teacher=teacher, terms=own, epochs=2, name="whole", **ALONE)
    cut_off(lambda: train(teacher=teacher, terms=own, epochs=2, name="cut", **ALONE))
    with pytest.raises(InputError, match=r"taught by a term of your own, 'bright': name it again with --term"):
        distill.resume(tmp_path / "runs" / "cut")
    with pytest.raises(InputError, match="was not taught by the term 'other': leave it out"):
        distill.resume(tmp_path / "runs" / "cut", terms=[*own, Other()])
    powers: list[float] = []
    monkeypatch.setattr(Nearness, "compare", noted(Nearness.compare, powers))
    result = distill.resume(tmp_path / "runs" / "cut", terms=[Nearness()])  # it goes on as it was
    assert len(rows(result.table)) == 2 and set(rows(result.table)[1]) == set(rows(whole.table)[1])
    assert set(powers) == {2.0} and read_manifest(result.folder)["methods"]["bright"]["settings"]["share"] == 0.4


def noted(compare: Callable[..., Any], powers: list[float]) -> Callable[..., Any]:
    def noting(self: Nearness, *rest: Any) -> Any:
        powers.append(self.power)
        return compare(self, *rest)

    return noting


class Other(Nearness):
    name = "other"


def test_a_run_that_died_before_its_first_checkpoint_wants_it_named_again(
    train: Train, teacher: Path, tmp_path: Path, die_once: type[BaseException]
) -> None:
    with pytest.raises(die_once):
        train(teacher=teacher, terms=[Nearness(share=0.4)], name="cut", **ALONE)
    with pytest.raises(InputError, match="name it again with --term"):
        distill.resume(tmp_path / "runs" / "cut")
    result = distill.resume(tmp_path / "runs" / "cut", terms=[Nearness()])
    assert result.manifest["methods"]["bright"]["settings"]["share"] == 0.4
    assert any("0.4 of the task's" in line for line in result.manifest["checks"] if "weight of bright" in line)


def test_afterwards_nothing_of_it_is_left(train: Train, teacher: Path) -> None:
    train(teacher=teacher, terms=[Nearness()], name="own", **ALONE)
    result = train(teacher=teacher, name="ours")
    assert "bright" not in result.manifest["methods"] and "bright" not in result.manifest["weights"]
    plain = train(terms=[], name="plain")
    assert plain.manifest["methods"] == {} and not same(weights(plain.last), weights(result.last))


# ---- the command line


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's own example, as a file of the working folder."""
    page = (Path(__file__).parents[2] / "docs" / "own-terms.md").read_text()
    (code,) = re.findall(r"```python\n# similarity\.py\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 60
    (tmp_path / "similarity.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken.py").write_text("class T(")
    sys.modules.pop("similarity", None)
    return "similarity:Similarity"


def test_the_example_of_the_page_from_the_command_line(
    module: str, scenes: Path, student: Path, teacher: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--term", module, "--help"])
    shown = capsys.readouterr().out
    assert "similar (your own)" in shown and "--similar-share SHARE" in shown and "default: 0.5" in shown
    words = ["--teacher", str(teacher), "--student", str(student), "--data", str(scenes), "--init", "none"]
    words += ["--layers", "none", "--response", "none", "--device", "cpu", "--name", "run", "--project", "."]
    words += [f"{key}={value}" for key, value in tiny.items() if key != "device"]
    assert main(["train", "--term", module, "--similar-layers", "P4,P5", "--similar-share", "0.2", *words]) == 0
    manifest = read_manifest(Path("run"))
    assert [pair["name"] for pair in manifest["methods"]["similar"]["pairs"]] == ["P4", "P5"]
    assert manifest["methods"]["similar"]["settings"]["share"] == 0.2
    closing = capsys.readouterr().out
    assert "similar_P4" in closing and "cosine before" in closing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("similarity", "write it as package.module:Name"),
        ("nowhere:Similarity", "No module named 'nowhere'"),
        ("similarity:Nothing", "Nothing"),
        ("similarity:F", "it is no term: derive it from distill.PairedTerm"),
        ("distill:PairedTerm", "it is no term: derive it from distill.PairedTerm, and give it a name"),
        ("broken:T", "never closed"),
    ],
)
def test_a_name_that_means_no_term_is_one_line(
    module: str, name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--term", name, "--help"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("distill: --term ") and expected in err and len(err.splitlines()) == 1


def test_settings_that_cannot_be(train: Train, teacher: Path, module: str, capsys: Any) -> None:
    with pytest.raises(InputError, match=r"bright_share=0 is out of range"):
        Nearness(share=0)
    with pytest.raises(InputError, match="the term's name 'bright' is taken"):
        train(teacher=teacher, terms=[Nearness(), Nearness()])
    with pytest.raises(InputError, match="the term 'bright' has nothing to compare with: name a teacher"):
        train(terms=[Nearness()])
    with pytest.raises(InputError, match="is no term: give an instance"):
        train(teacher=teacher, terms=[Nearness])
    for name in ("classes", "response", "layers"):
        with pytest.raises(InputError, match=f"the term's name '{name}' is taken"):
            train(teacher=teacher, terms=[type("T", (Nearness,), {"name": name})()])
    for name in ("at", "cos", "two words", ""):
        with pytest.raises(InputError, match="a term needs a name of its own"):
            type("T", (Nearness,), {"name": name})()
    alike = type("T", (Nearness,), {"name": "bright_maps"})
    longer = type("T", (Nearness,), {"name": "bright_mean"})
    with pytest.raises(InputError, match="'bright__P3' is in the log twice, of bright_maps and bright_mean"):
        train(teacher=teacher, terms=[alike(), longer()])
    with pytest.raises(InputError, match=r"a setting is a str, int, float, bool or tuple"):
        type("T", (Nearness,), {"__annotations__": {"where": "Path"}, "where": None})()
    with pytest.raises(InputError, match="gives the figures none: not those that its `figures` name"):
        train(teacher=teacher, terms=[type("T", (Nearness,), {"compare": lambda *_: torch.zeros(())})()])
    with pytest.raises(InputError, match="on several devices: put it in a file of its own"):
        train(teacher=teacher, terms=[type("T", (Nearness,), {"__module__": "__main__"})()], device="0,1")
    assert main(["train", "--term", module, "--resume", "somewhere", "--similar-share", "1"]) == 2
    assert "leave out similar_share" in capsys.readouterr().err
    assert main(["train", "--term", module, "--similar-share", "much"]) == 2
    assert "similar_share='much': a number is needed" in capsys.readouterr().err


def test_a_unet_is_taught_by_it_too() -> None:
    pytest.importorskip("monai")
    from distill.attention.layers import describe
    from distill.config import settings_from
    from distill.terms.method import Networks
    from distill.terms.methods import plan_all
    from distill.terms.registry import with_own

    network = distill.UNet(1, 2, channels=(4, 8))
    with torch.no_grad():
        layers = describe(network.eval(), torch.zeros(1, 1, 16, 16))
    settings = settings_from({"student": "unet:4", "teacher": "t.ckpt", "data": "d", "layers": "none"})
    with with_own([Nearness(layers=(layers[0].name,))]):
        plans, _ = plan_all(settings, Networks("unet", "unet", lambda: (layers, layers), gated=True))
    assert list(plans) == ["bright"]


def test_a_class_needs_no_decorator_and_its_fields_are_its_own() -> None:
    assert Nearness().share == 0.2 and type("T", (Nearness,), {"share": 0.5})().share == 0.5
    assert type("T", (Nearness,), {"share": 0.5})(share=0.7).share == 0.7 and Nearness(power=3.0).power == 3.0


def test_figures_that_are_no_numbers_do_not_lose_the_end_of_a_run() -> None:
    pair = {"name": "P3", "student": "a", "teacher": "b", "weight": 1.0, "kind": "energy"}
    planned = {"pairs": [pair], "settings": {}}
    table = Nearness().table(planned, {"bright_loss_P3": None, "bright_gap_P3": float("nan")}, {})
    assert table is not None and list(table.rows[1]) == ["bright_P3", "a", "b", *["not known"] * 4]
