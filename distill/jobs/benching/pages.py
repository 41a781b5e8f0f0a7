"""A bench's page: what it shows in which order, and the words that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.jobs.benching import plots, rows, words
from distill.jobs.benching.closeness import IMAGES
from distill.jobs.benching.paired import MOST
from distill.jobs.benching.results import Results
from distill.jobs.benching.seeds import named
from distill.view.benching import page
from distill.view.benching.content import Chart, Content, Section, Table

PAIRED = (
    "Each small tick is one seed: the arm's score less that of the other arm with the same seed. The dot is their "
    "mean, the bar its 95 % t-interval. A bar that keeps clear of 0 is a difference that these seeds show; one that "
    f"does not shows none, which is not the same as showing that there is none. {words.UNCORRECTED} It all holds for "
    "this data, this student and these settings."
)
COURSE = (
    "Means over the seeds that are done; bands are one standard deviation. At epoch 0 stands what a student that is "
    "taught detected before any training. Time is that of the epochs and of fitting first weights; checks and "
    "validations before and after training are in the time per run, under Cost."
)
COST = (
    "Per run is the whole process, its start, checks and final validation included; s per epoch is training and "
    "validation alone. Memory is the peak of a run's own process, without those that load its data."
)
ATTENTION = (
    "The last student of each run beside the teacher on up to {images} validation images: the mean cosine of their "
    "attention maps at the head's levels, against what the run gained over the run of {reference} with the same seed. "
    "A high cosine says little by itself: maps of other images are alike too (the last columns)."
)


def save_page(results: Results, path: Path) -> Path:
    """Write `report.html`; the path is returned."""
    return page.save_page(content(results), path)


def content(results: Results) -> Content:
    """Everything on the page."""
    arms = [arm.name for arm in results.plan.arms]
    verdicts = [words.headline(one) for one in results.differences] or ["Nothing can be compared yet."]
    told = words.progress(results), words.of_teacher(results), str(results.pairing), *results.notes
    notes = [f"{words.capital(text)}." for text in told if text]
    values = results.plan.arms[0].values
    data = Path(str(values["data"]))
    subject = f"{Path(str(values['student'])).name} on {data.parent.name}/{data.name}; {words.figure(results)}"
    sections = [
        _arms(results),
        *_paired(results, arms),
        *_course(results, arms),
        Section("Cost", COST, tables=[_table(rows.cost_rows(results))]),
        *_attention(results, arms),
        Section("Runs", "", tables=[_table(rows.run_rows(results), ("arm", "state", "device"))], folded=True),
        _plan(results),
    ]
    return Content(f"Bench {results.folder.name}", subject, verdicts, notes, arms, sections)


def _arms(results: Results) -> Section:
    abouts = ["what it is", *(arm.about for arm in results.plan.arms)]
    table = [(*row, about) for row, about in zip(rows.arm_rows(results), abouts, strict=True)]
    lead = f"The score is {words.figure(results)}: mean and standard deviation over seeds."
    return Section("Arms", lead, tables=[_table(table, ("arm", "what it is"))])


def _paired(results: Results, arms: Sequence[str]) -> Iterator[Section]:
    for reference, found in rows.by_reference(results):
        if marks := plots.estimates(found, arms):
            chart = Chart("", f"points more than {reference}, same seed", "", marks)
            table = _table(rows.difference_rows(results, found), ("verdict",))
            yield Section(f"Paired differences to {reference}", PAIRED, [chart], [table])


def _course(results: Results, arms: Sequence[str]) -> Iterator[Section]:
    score = f"{results.score.removeprefix('metrics/')}, points"
    epochs = plots.courses(results, arms)
    if any(sum(x > 0 for x in line.xs) > 1 for line in epochs):  # with val=False only the last epoch is known
        by_time = Chart("Against time", "minutes", score, plots.courses(results, arms, clock=True))
        yield Section("Course of training", COURSE, [Chart("Against the epoch", "epoch", score, epochs), by_time])


def _attention(results: Results, arms: Sequence[str]) -> Iterator[Section]:
    if not results.closeness or not results.differences:
        return
    reference = results.differences[0].reference
    pairs = list(dict.fromkeys(row["pair"] for row in results.closeness))
    axes = "cosine to the teacher's attention", f"points more than {reference}"
    charts = [Chart(pair, *axes, marks) for pair in pairs if (marks := plots.dots(results, arms, pair, reference))]
    lead = ATTENTION.format(images=IMAGES, reference=reference)
    yield Section("Attention and gain", lead, charts, [_table(rows.closeness_rows(results, pairs))])


def _plan(results: Results) -> Section:
    plan = results.plan
    facts: dict[str, Any] = {
        "command": plan.record["command"],
        "begun": plan.record["created"],
        "teacher": plan.teacher or "none",
        "seeds": named(plan.seeds),
        "at a time": f"{len(plan.slots)}" + (f", on {plan.threads} of the cores each" if plan.threads else ""),
        **plan.record["versions"],
        **{f"sha256 of {Path(file).name}": digest for file, digest in plan.files.items()},
    }
    lead = f"Numbers of seeds that would settle a difference are for 4 attempts in 5, and go up to {MOST}."
    settings = [(arm.name, ", ".join(f"{key}={value}" for key, value in arm.values.items())) for arm in plan.arms]
    tables = [_table([("", "value"), *((key, str(value)) for key, value in facts.items())], ("value",))]
    return Section(
        "How it was run", lead, tables=[*tables, _table([("arm", "settings"), *settings], ("settings",))], folded=True
    )


def _table(table: rows.Rows, text: Sequence[str] = ()) -> Table:
    """`text` are the columns of words; the first one is always."""
    head, *body = rows.filled(table)
    return Table(head, body, [place for place, name in enumerate(head) if place == 0 or name in text])
