"""Objects that a network did not find, and how much of its attention lay on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distill.attention.objects import Object, match
from distill.view.exhibit import Exhibit, Sample
from distill.view.report.encode import thing

MOST = 48  # missed objects that are listed; beyond them nobody scrolls
NOWHERE = Object((0, 0, 0, 0), "")
MISSED, FALSE_ALARM = "miss", "false alarm"  # what `status` says in the table of objects


def missed(exhibit: Exhibit) -> list[dict[str, Any]]:
    """Objects (see `objects_of`) that the first other network missed, those it looked at least first.

    An object is listed once, at the telling pair where the teacher attends to it most (without a teacher, the network
    itself): a layer that looks at no objects says nothing of one. `reference_ratio` is the reference's there, `found`
    whether the reference found the object (None without a reference or where it is not known), `instead` the network's
    own prediction of another class at its place.
    """
    key, silent = exhibit.others[0].key, exhibit.numbers.silent
    reference = exhibit.reference.key if exhibit.reference else None
    index = {sample.name: n for n, sample in enumerate(exhibit.samples)}
    rows = [row for row in exhibit.numbers.objects if row["status"] != FALSE_ALARM and row["image"] in index]
    of_reference = {_identity(row): row for row in rows if row["network"] == reference}
    chosen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        if row["network"] == key and row["status"] == MISSED and row["pair"] not in silent:
            same = chosen.get(_identity(row)[:2])
            if same is None or _interest(row) > _interest(same):
                chosen[_identity(row)[:2]] = row
    listed = sorted(chosen.values(), key=_ratio)[:MOST]
    entries = []
    for row in listed:
        entry = _entry(row, index[row["image"]], of_reference.get(_identity(row)), len(chosen))
        entries.append({**entry, "instead": _instead(exhibit.samples[entry["image"]].predictions.get(key, ()), row)})
    return entries


def objects_of(exhibit: Exhibit, sample: Sample) -> dict[str, Any]:
    """For each object of one image, by its number: the status by network, and the box ratio by pair and network.

    The objects are the labels, or without labels the predictions of the reference or of the only network.
    """
    status: dict[str, dict[int, str]] = {}
    ratio: dict[str, dict[str, dict[int, float | None]]] = {}
    for row in exhibit.numbers.objects:
        if row["image"] == sample.name and row["status"] != FALSE_ALARM:
            number, network = row["object"], row["network"]
            status.setdefault(network, {})[number] = row["status"]
            ratio.setdefault(row["pair"], {}).setdefault(network, {})[number] = row["ratio"]
    return {"status": status, "ratio": ratio}


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["image"], row["object"], row["pair"]


def _interest(row: Mapping[str, Any]) -> float:
    ratio = row["ratio"] if row.get("teacher_ratio") is None else row["teacher_ratio"]
    return -1.0 if ratio is None else float(ratio)


def _instead(predictions: Sequence[Object], row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The surest prediction that covers the object's place, which is then of another class."""
    place = replace(NOWHERE, box=tuple(row[side] for side in ("x1", "y1", "x2", "y2")))
    blind = [replace(prediction, name=place.name) for prediction in predictions]
    found = match([place], blind).found[0]
    if found is None:
        return None
    return thing(predictions[blind.index(found)])


def _ratio(row: Mapping[str, Any]) -> float:
    ratio = row["ratio"]
    return float("inf") if ratio is None else float(ratio)


def _entry(row: Mapping[str, Any], image: int, reference: Mapping[str, Any] | None, total: int) -> dict[str, Any]:
    status = reference and reference["status"]
    return {
        "image": image,
        "object": row["object"],
        "class": row["class"],
        "pair": row["pair"],
        "total": total,
        "box": tuple(row[side] for side in ("x1", "y1", "x2", "y2")),
        "ratio": row["ratio"],
        "reference_ratio": reference and reference["ratio"],
        "found": None if not status else status != MISSED,
    }
