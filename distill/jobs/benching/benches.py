"""Run a bench, go on with one that was cut short, and report what it has to say."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from distill.errors import InputError, Interrupted
from distill.jobs.benching.board import Board
from distill.jobs.benching.closeness import measure_closeness
from distill.jobs.benching.closing import text
from distill.jobs.benching.plans import PLAN, Plan, make_plan, program, with_arms
from distill.jobs.benching.processes import alone
from distill.jobs.benching.results import Results, collect
from distill.jobs.benching.running import Command, Pool, train_command
from distill.jobs.benching.seeds import named, read_seeds
from distill.jobs.benching.states import DONE, FAILED, Run, runs_of
from distill.jobs.benching.tables import write_tables
from distill.jobs.benching.timing import Timing, remaining
from distill.jobs.benching.trials import estimate
from distill.records import new_folder, numbered_folder
from distill.text import one_line

Arms = str | PathLike[str] | Sequence[str | PathLike[str]]  # names of recipes, in one text with commas or apart; files
PROJECT, NAME, REPORT = Path("runs/bench"), "bench", "report.html"


@dataclass(frozen=True)
class BenchResult:
    """What a bench found, so far as its runs are done; it prints as tables, and `report` is the page."""

    results: Results

    @property
    def folder(self) -> Path:
        return self.results.folder

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    @property
    def failed(self) -> tuple[Run, ...]:
        """The runs that failed."""
        return tuple(one.run for one in self.results.outcomes if one.state == FAILED)

    def __str__(self) -> str:
        return f"{text(self.results)}\n\nreport  {self.report}\ntables  {self.folder}/runs.csv, summary.csv"


def bench(
    student: str | PathLike[str],
    data: str | PathLike[str],
    arms: Arms,
    teacher: str | PathLike[str] | None = None,
    seeds: int | str | Sequence[int] = 8,
    *,
    jobs: int = 1,
    device: str | None = None,
    name: str | None = None,
    project: str | None = None,
    trust: bool = False,
    **arguments: Any,
) -> BenchResult:
    """Train the student in every arm with every seed, and say what the paired differences show.

    >>> distill.bench("yolo11n.yaml", "voc.yaml", "plain,default,fit", "yolo11s.pt", seeds=8, epochs=30)

    `arms` are recipes: names of those that come with the package, or paths of YAML files. `seeds` is a number (0 to 7
    for 8), a list, or a text such as "100-107". `jobs` runs are under way on each device at the same time; `device` may
    name several ("0,1"). Further keywords are settings for every arm, before which a recipe's own go. Runs are judged
    by their last epoch. Raises InputError, before anything is started, for whatever an arm could not be trained with;
    runs that fail are in the result.
    """
    common = {"student": student, "data": data, "teacher": teacher, **arguments}
    common = {key: fspath(v) if isinstance(v, PathLike) else v for key, v in common.items() if v is not None}
    for key in ("student", "data"):
        if key not in common:
            raise InputError(f"--{key} is missing: what every arm trains" + (" on" if key == "data" else ""))
    device = None if device is None else str(device)
    plan = make_plan(_names(arms), common, read_seeds(seeds), jobs, device, trust)
    folder = _claim(Path(project or PROJECT).expanduser().absolute(), name)
    plan.write(folder)
    return run_plan(plan, folder)


def resume_bench(folder: str | Path, arms: Arms | None = None) -> BenchResult:
    """Go on with a bench: what is done stays, what is not is begun anew; `arms` are further ones, for the same seeds.

    Raises InputError for a bench whose files changed, and for an arm that it has already.
    """
    place = Path(folder).expanduser().absolute()
    Plan.read(place)  # no lock in a folder that is no bench
    with alone(place) as lock:
        plan = Plan.read(place)
        if changed := plan.changed():
            raise InputError(f"--resume {folder}: changed or gone since this bench began: {', '.join(changed)}")
        was = plan.record["versions"]
        moved = [f"{key} {was[key]} -> {now}" for key, now in program(was).items() if was.get(key, now) != now]
        if moved:
            print(f"distill: not what this bench began with: {'; '.join(moved)}", file=sys.stderr)
        if arms is not None:
            plan = with_arms(plan, _names(arms))
            plan.write(place)
        return _done(plan, place, lock, train_command)


def report_bench(folder: str | Path) -> BenchResult:
    """Write the tables and the page of a bench anew, also while runs are missing."""
    place = Path(folder).expanduser().absolute()
    plan = Plan.read(place)
    note = measure_closeness(plan, place, runs_of(plan, place))
    return _written(collect(place, [note] if note else []))


def run_plan(plan: Plan, folder: Path, command: Command = train_command) -> BenchResult:
    """Do the runs that are not done, then report; `command` makes the command line of a run."""
    with alone(folder) as lock:
        return _done(plan, folder, lock, command)


def _done(plan: Plan, folder: Path, lock: int, command: Command) -> BenchResult:
    runs = runs_of(plan, folder)
    left = [run for run in runs if run.state() != DONE]  # under the lock: one that outlived an earlier bench may end
    try:
        timing = _timing(runs) or Timing(estimate(plan, folder, lock, command))
        board = Board(plan, runs, timing)
        print(_opening(plan, folder, runs, left, timing), file=sys.stderr, flush=True)
        pool = Pool(plan, lock, command, board.watch, lambda run, how: board.ended(run, how, pool))
        pool.work(left)
    except KeyboardInterrupt as stop:
        again = f"distill bench --resume {shlex.quote(str(folder))}"
        raise Interrupted(f"stopped; the runs under way are lost, those that are done stay: {again}") from stop
    return report_bench(folder)


def _timing(runs: Sequence[Run]) -> Timing | None:
    """What the runs that are done have taken; None where none is."""
    timing, known = Timing({}), False
    for run in runs:
        if run.state() == DONE and (seconds := run.noted().get("seconds")):
            timing.add(run.arm, seconds)
            known = True
    return timing if known else None


def _opening(plan: Plan, folder: Path, runs: Sequence[Run], left: Sequence[Run], timing: Timing) -> str:
    slots = len(plan.slots)
    time = timing.left(left, slots)
    known = "the first runs will tell how long it takes" if time is None else f"{remaining(time)}, as measured"
    kept = f", {len(runs) - len(left)} of them done" if len(left) < len(runs) else ""
    return (
        f"bench {folder}: {len(plan.arms)} arms x {len(plan.seeds)} seeds ({named(plan.seeds)}) = {len(runs)} runs"
        f"{kept}, {slots} at a time{f' on {plan.threads} of the cores each' if plan.threads else ''}; {known}"
    )


def _written(results: Results) -> BenchResult:
    from distill.jobs.benching.pages import save_page

    write_tables(results)
    try:
        save_page(results, results.folder / REPORT)
    except OSError as error:
        print(f"distill: the report was not written: {one_line(error)}", file=sys.stderr)
    return BenchResult(results)


def _names(arms: Arms) -> list[str]:
    arms = [arms] if isinstance(arms, PathLike) else arms or []
    parts = arms.split(",") if isinstance(arms, str) else [fspath(arm) for arm in arms]
    return [part.strip() for part in parts if part.strip()]


def _claim(project: Path, name: str | None) -> Path:
    if not name:
        return numbered_folder(project, NAME)
    if (project / name / PLAN).exists():
        raise InputError(f"--name {name}: {project / name} exists: go on with --resume, or take another name")
    folder = new_folder(project / name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
