"""The state machine of a bench, with a command that stands for training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distill.errors import InputError, Interrupted
from distill.jobs.benching import benches
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.processes import alone, ended_as_interrupts
from distill.jobs.benching.states import DONE, FAILED, WAITING, runs_of

from . import kit

ARMS = {"plain": 0.4, "other": 0.5}


def test_a_bench_runs_seed_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, fake = kit.plan(["plain", "other"], (3, 4)), kit.Fake(ARMS, seconds={("plain", 3): 0.5})
    result = benches.run_plan(plan, kit.folder_of(plan, tmp_path), fake)
    assert fake.begun == [("plain", 3), ("other", 3), ("plain", 4), ("other", 4)]
    assert fake.devices == ["cpu"] * 4 and not result.failed
    err = capsys.readouterr().err
    assert "2 arms x 2 seeds (3, 4) = 4 runs, 1 at a time on 1 of the cores each" in err
    assert "[4/4] other seed 4: 0.5400 in" in err and err.count("left\n") == 4
    noted = runs_of(plan, tmp_path)[0].noted()
    assert noted["code"] == 0 and noted["seconds"] > 0.5
    assert 1e6 < noted["memory"] < 1e8  # that of a bare Python, not that of this process
    assert "other" in str(result) and result.report.is_file()


def test_a_failed_run_is_told_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, fake = kit.plan(["plain", "other"]), kit.Fake(ARMS, codes={("other", 0): 3})
    result = benches.run_plan(plan, kit.folder_of(plan, tmp_path), fake)
    assert len(fake.begun) == 4
    assert [(run.arm, run.seed) for run in result.failed] == [("other", 0)]
    err = capsys.readouterr().err
    assert "other seed 0 failed (exit code 3)" in err and "out of luck" in err and "other-seed0.log" in err
    assert "failed: other seed 0" in str(result)

    again = kit.Fake(ARMS)  # what failed is begun anew, what is done stays
    assert not benches.run_plan(plan, tmp_path, again).failed
    assert again.begun == [("other", 0)]
    assert "[4/4] other seed 0: 0.5000 in" in capsys.readouterr().err


def test_an_end_without_a_result_is_a_failure(tmp_path: Path) -> None:
    plan = kit.plan(["plain"], (0,))
    result = benches.run_plan(plan, kit.folder_of(plan, tmp_path), lambda run, device: [sys.executable, "-S", "-c", ""])
    assert [run.seed for run in result.failed] == [0]


def test_slots_and_devices(tmp_path: Path) -> None:
    plan = kit.plan(["plain", "other"], (0, 1), jobs=1, devices=("a", "b"))
    fake = kit.Fake(ARMS, seconds={("plain", 0): 0.3, ("other", 0): 0.3})
    benches.run_plan(plan, kit.folder_of(plan, tmp_path), fake)
    assert plan.slots == ("a", "b") and kit.plan(["plain"], jobs=2).slots == ("cpu", "cpu")
    assert set(fake.devices) == {"a", "b"}


def test_an_interruption_loses_the_runs_under_way_alone(tmp_path: Path) -> None:
    plan = kit.plan(["plain", "other"])
    folder = kit.folder_of(plan, tmp_path / "b")
    fake = kit.Fake(ARMS, seconds={("other", 0): 60})
    timer = threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="distill bench --resume"):
        benches.run_plan(plan, folder, fake)
    timer.join()
    assert [run.state() for run in runs_of(plan, folder)] == [DONE, WAITING, WAITING, WAITING]
    assert (folder / "runs" / "other" / "seed0").is_dir()  # the part of it that is begun anew
    with alone(folder):  # nothing of it lives on
        pass
    again = kit.Fake(ARMS)
    benches.run_plan(plan, folder, again)
    assert again.begun == [("other", 0), ("plain", 1), ("other", 1)]
    assert all(run.state() == DONE for run in runs_of(plan, folder))


def test_what_was_to_be_ignored_stays_ignored() -> None:
    """As under nohup: the terminal may close."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests themselves may run under nohup
        with pytest.raises(KeyboardInterrupt), ended_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_bench_is_worked_on_once(tmp_path: Path) -> None:
    plan = kit.plan(["plain"])
    folder = kit.folder_of(plan, tmp_path)
    with alone(folder) as lock:
        survivor = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
        with pytest.raises(InputError, match="still at work"):
            benches.run_plan(plan, folder, kit.Fake(ARMS))
    try:
        with pytest.raises(InputError, match="still at work"):  # a run that outlived its bench
            benches.run_plan(plan, folder, kit.Fake(ARMS))
    finally:
        survivor.kill()
        survivor.wait()
    benches.run_plan(plan, folder, kit.Fake(ARMS))


def test_a_run_that_ended_by_itself_counts(tmp_path: Path) -> None:
    plan = kit.plan(["plain"], (0,))
    (run,) = runs_of(plan, kit.folder_of(plan, tmp_path))
    kit.leave(run, [0.1, 0.2, 0.3])
    fake = kit.Fake(ARMS)
    benches.run_plan(plan, tmp_path, fake)
    assert not fake.begun


def test_the_first_run_begins_alone(tmp_path: Path) -> None:
    """Ultralytics writes a cache beside the data, which two runs must not do at once."""
    plan, times = kit.plan(["plain", "other"], (0,), jobs=2), []

    class Slow(kit.Fake):
        def __call__(self, run, device):
            times.append(time.monotonic())
            words = super().__call__(run, device)
            words[3] = "import time\ntime.sleep(0.6)\n" + words[3]
            return words

    benches.run_plan(plan, kit.folder_of(plan, tmp_path), Slow(ARMS, seconds={("plain", 0): 0.5}))
    assert times[1] - times[0] > 0.5


def test_resume_refuses_what_changed(tmp_path: Path) -> None:
    teacher = tmp_path / "t.pt"
    teacher.write_bytes(b"one")
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    folder = kit.folder_of(kit.plan(["plain"], files={str(teacher): digest}), tmp_path / "b")
    assert not Plan.read(folder).changed()
    teacher.write_bytes(b"two")
    with pytest.raises(InputError, match="changed or gone"):
        benches.resume_bench(folder)
    with pytest.raises(InputError, match="no bench lies there"):
        benches.resume_bench(tmp_path)
    (folder / "bench.yaml").write_text("arms: 3\n")
    with pytest.raises(InputError, match="damaged"):
        benches.report_bench(folder)


def test_a_bench_without_what_its_arms_share_takes_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"torch": "1.0", "distill": "0.0", "numpy": "0"}
    plan = kit.plan(["plain"])
    folder = kit.folder_of(replace(plan, record={**plan.record, "versions": versions}), tmp_path)
    before = (folder / "bench.yaml").read_bytes()
    with pytest.raises(InputError, match="begin another"):
        benches.resume_bench(folder, "init")
    assert (folder / "bench.yaml").read_bytes() == before
    assert {"torch 1.0", "distill 0.0", "numpy 0"} <= set(re.findall(r"(\w+ [\d.]+) ->", capsys.readouterr().err))


def test_further_arms_wait_for_a_bench_at_work(tmp_path: Path) -> None:
    folder = kit.folder_of(kit.plan(["plain"]), tmp_path)
    with alone(folder), pytest.raises(InputError, match="still at work"):
        benches.resume_bench(folder, "init")


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = kit.plan([kit.arm("plain", layers=["P3"], share=0.3), "other"], (5, 6), devices=("0", "1"), jobs=2)
    assert Plan.read(kit.folder_of(plan, tmp_path)) == plan


def test_states(tmp_path: Path) -> None:
    plan = kit.plan(["plain"], (0,))
    (run,) = runs_of(plan, tmp_path)
    assert run.state() == WAITING
    kit.leave(run, [0.1], finished=False)
    assert run.state() == WAITING and len(run.rows()) == 1
    run.folder.with_suffix(".json").write_text('{"code": 1, "seconds": 2.0, "memory": 3}')
    assert run.state() == FAILED
    run.clear()
    assert run.state() == WAITING and not run.folder.exists()
