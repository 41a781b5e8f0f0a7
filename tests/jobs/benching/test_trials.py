from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distill.jobs.benching import trials
from distill.jobs.benching.processes import alone
from distill.jobs.benching.states import Run
from distill.jobs.benching.timing import Timing, spoken

from . import kit

SCRIPT = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir()
(folder / "results.csv").write_text("epoch,time,s\\n1,5,\\n2,7,\\n3,12,0.1\\n")
(folder / "manifest.json").write_text(json.dumps({"score": "s", "finished": True}))
"""


def test_a_whole_run_by_hand() -> None:
    # a tenth of the data in 2 s, 3 s of validation; 5 - 2 s for the loaders; 20 - 12 s around the epochs
    assert trials.whole_run([5, 7, 12], 20, 0.1, 1, 1) == pytest.approx(3 + 8 + (2 / 0.1 + 3))
    assert trials.whole_run([5, 7, 12], 20, 0.1, 30, 30) == pytest.approx(11 + 30 * 23)
    assert trials.whole_run([5, 7, 12], 20, 0.1, 30, 1) == pytest.approx(11 + 30 * 20 + 3)  # val=False


def test_trials_are_made_for_each_arm_and_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "images_of", lambda plan: 512)  # eight batches of 16 are a quarter
    arms = [kit.arm("plain", epochs=10), kit.arm("half", epochs=5), kit.arm("unseen", epochs=10, val=False)]
    plan = kit.plan(arms, range(4))
    folder, seen = kit.folder_of(plan, tmp_path), []

    def command(run: Run, device: str | None) -> list[str]:
        seen.append((run.arm, run.seed, run.epochs, "fraction: 0.25" in run.settings.read_text()))
        return [sys.executable, "-S", "-c", SCRIPT, str(run.folder)]

    with alone(folder) as lock:
        found = trials.estimate(plan, folder, lock, command)
    assert seen == [(arm.name, 0, 3, True) for arm in arms]
    assert found["plain"] - found["half"] == pytest.approx(5 * (2 / 0.25 + 3), abs=3)
    assert found["plain"] - found["unseen"] == pytest.approx(9 * 3, abs=3)  # it validates once, at its end
    assert not (folder / ".trial").exists()


def test_a_trial_is_a_part_of_what_an_arm_trains_on() -> None:
    """Of 1600 images: 128 of all, or of the fifth that `fraction=` leaves; never more than there are."""
    assert trials.part_of({}, 1600) == trials.part_of({"batch": "16"}, 1600) == pytest.approx(0.08)
    assert trials.part_of({"fraction": "0.2"}, 1600) == pytest.approx(0.4)
    assert trials.part_of({"fraction": 0.2, "batch": -1}, 100) == trials.part_of({}, 0) == 1


def test_no_trial_for_a_short_bench(tmp_path: Path) -> None:
    assert trials.estimate(kit.plan(["plain"], (0, 1)), tmp_path, 0) == {}
    assert trials.estimate(kit.plan([kit.arm("plain", epochs=99, student="unet:8")]), tmp_path, 0) == {}


def test_time_left() -> None:
    timing = Timing({"plain": 100.0})
    runs = [Run(Path(), arm, 0, 3) for arm in ("plain", "other")]
    assert timing.left(runs, 1) == 200  # of the other nothing is known: as the one
    timing.add("other", 300.0)
    assert timing.left(runs, 1) == 400 and timing.left(runs, 2) == 200
    timing.add("plain", 50.0)  # what was measured counts more than the trial
    assert timing.left(runs, 4) == 175
    assert Timing({}).left(runs, 1) is None and Timing({}).left([], 1) == 0


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (600, "10 min"), (3900, "1 h 05 min")])
def test_spoken(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
