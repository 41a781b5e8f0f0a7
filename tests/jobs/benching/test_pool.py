"""tools/pool_benches.py: pairs of one seed within one bench, never across benches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[3] / "tools" / "pool_benches.py"


def pooled(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True)


def test_pairs_stay_within_their_bench(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    head = "arm,seed,state,score\n"
    first.write_text(f"{head}plain,0,done,0.10\nmine,0,done,0.13\nmine,1,failed,\n")
    second.write_text(f"{head}plain,0,done,0.20\nmine,0,done,0.25\nplain,7,done,0.90\n")
    told = pooled(first, second).stdout
    assert "| plain | 10.00 (1) | 55.00 ± 49.50 (2) | 40.00 ± 43.59 (3) |" in told
    assert "| mine | +4.00 (-8.71 to +16.71), 2 |" in told  # 3 and 5: t(0.975, 1) = 12.706, sd / sqrt 2 = 1


def test_benches_are_named_by_their_folders_and_none_counts_twice(tmp_path: Path) -> None:
    files = []
    for name, score in (("first", 0.1), ("second", 0.2)):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "runs.csv")
        files[-1].write_text(f"arm,seed,state,score\nplain,0,done,{score}\nplain,1,done,\n")
    assert "| arm | first | second | all |" in pooled(*files).stdout
    for wrong in ([files[0], files[0]], [tmp_path / "gone.csv"], [TOOL]):
        done = pooled(*wrong)
        assert done.returncode == 2 and "Traceback" not in done.stderr


def test_a_reference_that_is_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("arm,seed,state,score\nmine,0,done,0.1\n")
    done = pooled(file, "--minus", "plain")
    assert done.returncode == 2 and "plain: no run of it is done: there are mine" in done.stderr
