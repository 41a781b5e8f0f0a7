"""From what runs leave to figures, words, tables and the page."""

from __future__ import annotations

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from distill.attention.maps import AttentionMap
from distill.errors import InputError
from distill.jobs.benching.closeness import COLUMNS, cosines, measure_closeness, read_closeness
from distill.jobs.benching.closing import text
from distill.jobs.benching.pages import save_page
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.plots import courses
from distill.jobs.benching.results import Results, collect
from distill.jobs.benching.rows import difference_rows
from distill.jobs.benching.starts import pairing
from distill.jobs.benching.states import Run, clock, gpu_memory, runs_of, scores
from distill.jobs.benching.tables import write_tables
from distill.records import sha256

from . import kit

HIGHER = {"plain": 0.40, "good": 0.45, "noisy": 0.41}
NOISE = {0: 0.03, 1: -0.035, 2: 0.02, 3: 0.0}


def score(arm: str, seed: int) -> float:
    base = HIGHER[arm] + 0.001 * seed
    return base + (NOISE[seed] if arm == "noisy" else 0.0004 * (-1) ** seed if arm == "good" else 0.0)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three arms with four seeds, of which the last run of `noisy` failed and that of `good` is missing."""
    plan = kit.plan(list(HIGHER), tuple(NOISE))
    folder = kit.folder_of(plan, tmp_path / "made <b>")
    for run in runs_of(plan, folder)[:-2]:
        final = score(run.arm, run.seed)
        kit.leave(run, [final / 2, final + 0.01, final], peak_memory=2**31, device="cuda:0")
        note = '{"code": 0, "seconds": 60.0, "memory": 1073741824, "device": "cpu"}'
        run.folder.with_suffix(".json").write_text(note)
    failed = runs_of(plan, folder)[-1]
    failed.folder.parent.mkdir(parents=True, exist_ok=True)
    failed.folder.with_suffix(".json").write_text('{"code": 1, "seconds": 2.0, "memory": 10, "device": "cpu"}')
    return folder


def test_runs_are_judged_by_their_last_epoch(made: Path) -> None:
    results = collect(made)
    assert results.done == 10 and results.score == kit.SCORE
    first = results.outcomes[0]
    assert first.score == pytest.approx(0.40) and max(first.scores) > first.score
    assert (first.wall, first.memory, first.gpu, first.epoch_seconds) == (60, 2**30, 2**31, 10)
    assert math.isnan(results.outcomes[-1].score) and math.isnan(results.outcomes[-1].gpu)
    verdicts = {one.arm: (one.verdict, one.spread.n) for one in results.differences}
    assert verdicts == {"good": ("better", 3), "noisy": ("not shown", 3)}
    assert results.spread("plain").mean == pytest.approx(0.4015)


def test_the_terminal(made: Path) -> None:
    said = text(collect(made, ["a note"]))
    assert "10 of 12 runs are done; failed: noisy seed 3" in said
    assert "mAP50-95(B) of the last epoch, in points (of 100)" in said
    line = next(line for line in said.splitlines() if line.startswith("good") and "better" in line)
    assert "+5.01" in line and line.endswith("better")
    assert "seeds would settle" in said and "paired: not known" in said and "note: a note" in said
    assert "Holm" in said and "1.00 GiB" in said and "2.00 GiB" in said


def taught(folder: Path, teacher: float | None, arms: dict[str, Any], seeds: dict[str, int]) -> Results:
    """A bench in which all arms but plain were taught; `arms` are their recipes, `seeds` how many of each are done."""
    plan = kit.plan([kit.arm("plain", teacher="none"), *(kit.arm(name, **recipe) for name, recipe in arms.items())])
    kit.folder_of(replace(plan, seeds=tuple(range(4))), folder)
    for run in runs_of(Plan.read(folder), folder):
        if run.seed < seeds.get(run.arm, 4):
            plain = run.arm == "plain"
            known = {} if plain else {"before": {"teacher": {"metrics": {kit.SCORE: teacher}}}}
            kit.leave(run, [0.40 + 0.05 * (not plain) + 0.001 * run.seed], **known)
    return collect(folder)


@pytest.mark.parametrize(
    ("teacher", "part", "told"),
    [
        (0.6015, "25%", "the teacher scores 60.15 on these images"),
        (0.4265, "200%", "scores 42.65 on these images; no less than it: good, to which it has little to teach"),
        (0.4021, None, "no less than it: good, to which it has little to teach"),  # plain scatters by 0.0013
        (0.3, None, "no less than it: plain, good, to which it has little to teach"),
        (None, None, None),  # nothing was in the images that could be scored
    ],
)
def test_the_teacher_is_told_and_what_part_of_the_way_to_it_was_gone(
    tmp_path: Path, teacher: float | None, part: str | None, told: str | None
) -> None:
    """Plain has 0.4015 on average; good, with 0.05 more, goes a quarter of the way to a teacher of 0.6015."""
    results = taught(tmp_path, teacher, {"good": {}}, {})
    said, page = text(results), save_page(results, tmp_path / "report.html").read_text()
    for shown in (said, page):
        assert ("of the gap" in shown) == (part is not None) and (part or "") in shown
        assert ("teacher scores" in shown) == (told is not None)
    assert told is None or told in said


def test_an_arm_that_lost_went_no_part_of_the_way(tmp_path: Path) -> None:
    plan = kit.plan(["plain", "bad"], (0, 1))
    for run in runs_of(plan, folder := kit.folder_of(plan, tmp_path)):
        kit.leave(run, [0.4 + 0.001 * run.seed if run.arm == "plain" else 0.3])
    results = replace(collect(folder), teacher=0.6)
    (head, row) = difference_rows(results, results.differences)
    assert row[head.index("mean")].startswith("−") and row[head.index("of the gap")] == ""


def test_the_way_is_measured_on_the_seeds_of_the_difference(tmp_path: Path) -> None:
    """Good has the first two seeds alone, on which plain has 0.4005."""
    assert "25%" in text(taught(tmp_path, 0.6005, {"good": {}}, {"good": 2}))


def test_a_teacher_that_saw_other_images_is_not_told_of(tmp_path: Path) -> None:
    for number, key in enumerate(("teacher", "imgsz", "teacher-imgsz", "data")):
        folder = tmp_path / str(number)
        assert math.isnan(taught(folder, 0.6, {"other": {key: 320}}, {}).teacher)
        results = taught(folder / "both", 0.6, {"other": {key: 320}, "good": {}}, {})
        assert results.teacher == pytest.approx(0.6)


def test_the_tables(made: Path) -> None:
    write_tables(collect(made))
    with (made / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 12 and runs[0]["score"] == "0.4" and runs[-1]["state"] == "failed" and runs[-1]["score"] == ""
    assert [run["state"] for run in runs].count("waiting") == 1
    with (made / "summary.csv").open(newline="") as file:
        arms = {row["arm"]: row for row in csv.DictReader(file)}
    assert arms["good"]["verdict_minus_plain"] == "better" and arms["plain"]["mean_minus_plain"] == ""
    assert float(arms["good"]["low_minus_plain"]) > 0 and int(arms["noisy"]["seeds_needed_minus_plain"]) > 3


def test_the_page_says_it_first_and_escapes_everything(made: Path) -> None:
    rows = [f"{arm},{seed},P3,{0.9 if arm == 'good' else 0.7},0.5,16,abc" for arm in HIGHER for seed in range(3)]
    (made / "attention.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    page = save_page(collect(made, ["1 < 2"]), made / "report.html").read_text()
    assert "<b>" not in page and "made &lt;b&gt;" in page and "1 &lt; 2" in page
    assert page.index("good is better than plain: +5.01 points") < page.index("<svg")
    assert page.count("<figure>") == 4  # differences, by epoch, by time, one level of attention
    assert "src=" not in page and 'href="http' not in page and "@import" not in page
    for piece in (
        "Paired differences to plain",
        "Cost",
        "Attention and gain",
        "10 of 12 runs are done",
        "The arm good.",
    ):
        assert piece in page


def test_a_page_before_anything_is_done(tmp_path: Path) -> None:
    plan = kit.plan(["plain", "other"])
    folder = kit.folder_of(plan, tmp_path)
    page = save_page(collect(folder), folder / "report.html").read_text()
    assert "0 of 4 runs are done" in page and "other against plain: no seed has both yet." in page
    kit.leave(runs_of(plan, folder)[0], [0.2])
    kit.leave(runs_of(plan, folder)[1], [0.3])
    page = save_page(collect(folder), folder / "report.html").read_text()
    assert "+10.00 points with one seed, which says nothing" in page


def test_plain_and_native_are_both_references(tmp_path: Path) -> None:
    plan = kit.plan(["native", "mine", "plain"], (0, 1))
    folder = kit.folder_of(plan, tmp_path)
    for run in runs_of(plan, folder):
        kit.leave(run, [0.1 * len(run.arm) + 0.01 * run.seed])
    pairs = [(one.arm, one.reference) for one in collect(folder).differences]
    assert pairs == [("native", "plain"), ("mine", "plain"), ("mine", "native")]


def test_an_arm_with_a_budget_of_its_own_is_told_with_it(tmp_path: Path) -> None:
    for place, half in enumerate((kit.arm("half", epochs=2), kit.arm("half", epochs=4))):
        plan = kit.plan([kit.arm("plain", epochs=4), half], (0,))
        folder = kit.folder_of(plan, tmp_path / str(place))
        for run in runs_of(plan, folder):
            kit.leave(run, [0.1] * run.epochs)
        head, _, row = [line.split() for line in text(collect(folder)).split("\n\n")[2].splitlines()]
        assert ("epochs" in head) == (place == 0)
        assert place or row[head.index("epochs")] == "2"


def test_a_course_begins_with_first_weights_and_the_time_they_took(tmp_path: Path) -> None:
    """Points by hand: 60 and 120 s of fitting, found 0.1 and 0.2 before training; the plain arm knows nothing of it."""
    folder = kit.folder_of(kit.plan(["plain", "default"], (0, 1)), tmp_path)
    for run in runs_of(Plan.read(folder), folder):
        first = {"seconds": 60.0 * (run.seed + 1), "start": "fitted"}
        found = {"student": {"metrics": {kit.SCORE: 0.1 * (run.seed + 1)}}}
        own = {"initialised": first, "before": found} if run.arm == "default" else {}
        kit.leave(run, [0.3, 0.4], **own)
    results = collect(folder)
    by_epoch, by_time = (courses(results, ["plain", "default"], clock) for clock in (False, True))
    assert [list(line.xs) for line in by_epoch] == [[1, 2], [0, 1, 2]]
    assert by_time[0].xs == pytest.approx([10 / 60, 20 / 60])
    assert by_time[1].xs == pytest.approx([90 / 60, 100 / 60, 110 / 60])
    assert by_time[1].means == pytest.approx([15, 30, 40])
    assert by_time[1].high[0] - by_time[1].means[0] == pytest.approx(10 / 2**0.5)
    assert results.outcomes[1].epoch_seconds == 10  # an epoch's, without the fit


DAMAGE = {
    "results.csv": b"epoch,time\n1,\xff\n",
    "manifest.json": b"[1]",
    "../seed0.json": b'{"code": 0, "seconds": null}',
}


@pytest.mark.parametrize("file", DAMAGE)
def test_a_damaged_file_of_one_run_spoils_no_report(made: Path, file: str) -> None:
    run = runs_of(Plan.read(made), made)[0]
    (run.folder / file).write_bytes(DAMAGE[file])
    results = collect(made)
    assert results.done == (10 if "seed0" in file else 9)
    assert math.isnan(results.outcomes[0].wall) or results.outcomes[0].state != "done"
    save_page(results, made / "report.html")


@pytest.mark.parametrize("change", [{"record": None}, {"seeds": ["x"]}, {"arms": []}, {"record": {"teacher": None}}])
def test_a_damaged_plan_is_said_in_one_line(made: Path, change: dict[str, Any]) -> None:
    values = yaml.safe_load((made / "bench.yaml").read_text())
    (made / "bench.yaml").write_text(yaml.safe_dump({**values, **change}))
    with pytest.raises(InputError, match="bench.yaml: damaged: "):
        Plan.read(made)


def test_attention_is_not_measured_against_another_teacher_than_the_bench_s(tmp_path: Path) -> None:
    (teacher := tmp_path / "t.pt").write_bytes(b"one")
    files = {str(teacher): sha256(teacher)}
    plan = kit.plan(["plain"], (0,), record={"teacher": str(teacher), "trust": False}, files=files)
    (run,) = runs_of(plan, tmp_path)
    kit.leave(run, [0.1])
    (run.folder / "weights").mkdir()
    (run.folder / "weights" / "last.pt").touch()
    teacher.write_bytes(b"another")
    assert measure_closeness(plan, tmp_path, [run]).endswith(f"changed or gone since this bench began: {teacher}")


def test_memory_of_a_run_without_a_gpu_is_no_gpus() -> None:
    assert gpu_memory({"peak_memory": 8, "device": "cuda:0"}) == 8
    assert math.isnan(gpu_memory({"peak_memory": 8, "device": "cpu"})) and math.isnan(gpu_memory({"device": "cuda:0"}))


def test_a_unets_table(tmp_path: Path) -> None:
    run = Run(tmp_path, "plain", 0, 2)
    run.folder.mkdir(parents=True)
    (run.folder / "results.csv").write_text("epoch,seconds,val/dice\n1,10,0.5\n2,11.5,0.625\n3,9")
    (run.folder / "manifest.json").write_text('{"score": "dice", "finished": true}')
    assert scores(run) == [0.5, 0.625] and clock(run) == [10, 21.5]


def test_epochs_that_were_not_validated_have_no_score(tmp_path: Path) -> None:
    """As with val=False: Ultralytics writes zeros. A network that finds nothing has a score of 0, but a loss."""
    run = runs_of(kit.plan(["plain"], (0,)), tmp_path)[0]
    kit.leave(run, [0.0])
    lines = ["epoch,time,metrics/mAP50-95(B),val/box_loss,val/cls_loss", "1,10,0,0,0", "2,20,0,1.5,0", "3,30,0.4,1.2,1"]
    (run.folder / "results.csv").write_text("\n".join(lines))
    assert math.isnan(scores(run)[0]) and scores(run)[1:] == [0.0, 0.4]


# ---- the start of paired runs


def starts(folder: Path, plan: Plan, digests: dict[tuple[str, int], tuple[str, list[str]]]) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    for run in runs_of(plan, folder):
        weights, data = digests[run.arm, run.seed]
        part = {"share": 1.0} if run.arm.startswith("part") else None
        teacher = {"sha256": "other" if run.arm == "part of another" else "one"}
        kit.leave(run, [0.1], start={"weights": weights, "data": data}, initialised=part, teacher=teacher)
    return str(pairing(plan.arms, runs_of(plan, folder)))


def test_pairing(tmp_path: Path) -> None:
    arms = [
        "plain",
        "other",
        kit.arm("warm", pretrained=False),
        kit.arm("half", batch=8),
        "part",
        "part2",
        "part of another",
    ]
    plan = kit.plan(arms, (0, 1))
    same = {(arm.name, seed): (f"w{seed}", ["a", "b"]) for arm in plan.arms for seed in (0, 1)}
    same |= {(arm, seed): ("teacher's", ["a", "b"]) for arm in ("part", "part2") for seed in (0, 1)}
    same |= {("part of another", seed): ("the other's", ["a", "b"]) for seed in (0, 1)}
    assert starts(tmp_path / "a", plan, same).startswith("paired: yes (")
    meant = {**same, ("warm", 0): ("x", ["a", "b"]), ("half", 1): ("w1", ["c"])}
    assert starts(tmp_path / "b", plan, meant).startswith("paired: yes (")
    weights = starts(tmp_path / "c", plan, {**same, ("other", 1): ("x", ["a", "b"])})
    assert weights == "paired: no: other begins with other weights than plain in seed 1"
    part = starts(tmp_path / "e", plan, {**same, ("part2", 1): ("w1", ["a", "b"])})
    assert part == "paired: no: part2 begins with other weights than part in seed 1"
    data = starts(tmp_path / "d", plan, {**same, ("warm", 0): ("x", ["a", "c"])})
    assert data == "paired: no: warm sees other images, or in another order, than plain in seed 0 (from epoch 2)"


def test_pairing_of_fitted_starts(tmp_path: Path) -> None:
    """Fitted weights depend on the images: arms that see others begin otherwise on purpose, all others alike."""
    plan = kit.plan(["fit", "fit2", kit.arm("fit of others", mosaic=0.0), "part", "own"], (0,))

    def found(**digests: str) -> str:
        for run in runs_of(plan, tmp_path):
            shutil.rmtree(run.folder, ignore_errors=True)
            how = {"fit": "fitted", "own": "own"}.get(run.arm[:3])
            first = {"share": 1.0} if how is None else {"start": how}
            start = {"weights": digests.get(run.arm.replace(" ", "_"), run.arm[:3]), "data": ["a"]}
            kit.leave(run, [0.1], start=start, initialised=first, teacher={"sha256": "one"})
        return str(pairing(plan.arms, runs_of(plan, tmp_path)))

    assert found().startswith("paired: yes (") and found(fit_of_others="x").startswith("paired: yes (")
    assert found(fit2="x") == "paired: no: fit2 begins with other weights than fit in seed 0"


def test_a_start_that_only_some_recorded(tmp_path: Path) -> None:
    plan = kit.plan(["plain", "other"], (0,))
    first, second = runs_of(plan, tmp_path)
    kit.leave(first, [0.1], start={"weights": "a", "data": ["b"]})
    kit.leave(second, [0.1])
    assert "in 1 of 2 runs" in str(pairing(plan.arms, [first, second]))


# ---- attention


def test_cosines_by_hand() -> None:
    def one(*values: float) -> AttentionMap:
        return AttentionMap(torch.tensor([[values]]), "x")

    a, b = one(1, 0), one(0, 1)
    assert cosines([a, b], [a, b]) == (1.0, 0.0)
    assert cosines([a, a], [a, b]) == (0.5, 0.5)
    same, other = cosines([a, one(1, 0, 0)], [a, one(0, 1, 0)])
    assert same == 0.5 and math.isnan(other)  # maps of other shapes are not held against each other


def test_attention_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    plan = kit.plan(["plain"])
    assert "no teacher" in measure_closeness(plan, tmp_path, [])
    for teacher, word in (("x.ckpt", "detectors only"), ("gone.pt", "not measured")):
        plan = kit.plan(["plain"], (0,), record={"teacher": teacher, "trust": False})
        (run,) = runs_of(plan, tmp_path / teacher)
        kit.leave(run, [0.1])
        (run.folder / "weights").mkdir()
        (run.folder / "weights" / "last.pt").touch()
        assert word in measure_closeness(plan, tmp_path / teacher, [run])
        assert not read_closeness(tmp_path / teacher)
