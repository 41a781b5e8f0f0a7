"""How far each network attends to each object, as a table.

A row per image, object, pair and network, about the picture without the letterbox's border:
- object: its number in the image; source: "label", or "prediction" for false alarms; in an image without labels the
  teacher's (or the only network's) predictions are the objects, and no prediction is a false alarm;
- class, x1, y1, x2, y2 (picture pixels), size (`size_class`);
- status: "hit" or "miss" of the network's own predictions, or "false alarm", a row for that network alone; None where
  it has no predictions to judge by, or does not know the class; score: of the prediction that hit, or of the false
  alarm;
- energy, share, ratio, pointing, pointing_chance: see `distill.attention.objects.Focus`;
- teacher_ratio: the teacher's ratio for the same box; ratio_gap: teacher_ratio - ratio. None for the teacher itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from distill.attention.objects import Box, Focus, Object, focus, match, size_class
from distill.jobs.seeing.intervals import FALSE_ALARM
from distill.view.exhibit import Exhibit, Network, Row, Sample

OBJECT_COLUMNS = (
    *("image", "pair", "network", "object", "source", "class", "x1", "y1", "x2", "y2", "size", "status", "score"),
    *("energy", "share", "ratio", "pointing", "pointing_chance", "teacher_ratio", "ratio_gap"),
)


def object_rows(exhibit: Exhibit, sample: Sample) -> Iterator[dict[str, Any]]:
    """The rows of one image, with `OBJECT_COLUMNS`; none where it has neither labels nor predictions."""
    reference = exhibit.reference.key if exhibit.reference else None
    things = {network.key: _things(sample, network, reference) for network in exhibit.networks}
    for row in exhibit.rows:
        for key, own in things.items():
            for index, (thing, told) in enumerate(own):
                found = _focus(sample, row, key, thing.box)
                teacher = None
                if reference is not None and reference != key:
                    teacher = _focus(sample, row, reference, thing.box).ratio
                gap = None if teacher is None or found.ratio is None else teacher - found.ratio
                head = {"image": sample.name, "pair": row.name, "network": key, "object": index}
                yield head | told | asdict(found) | {"teacher_ratio": teacher, "ratio_gap": gap}


def _focus(sample: Sample, row: Row, key: str, box: Box) -> Focus:
    return focus(sample.maps[row.name][key], row.sides[key].lattice, sample.frame, box)


def _things(sample: Sample, network: Network, reference: str | None) -> list[tuple[Object, dict[str, Any]]]:
    """The objects of an image as one network has them, false alarms last, each with the columns that tell of it."""
    mine = sample.predictions.get(network.key)
    objects, source = sample.labels, "label"
    if objects is None:
        objects, source = sample.predictions.get(reference or network.key, ()), "prediction"
    if mine is None:
        return [(thing, _told(thing, source, None, None)) for thing in objects]
    matches = match(objects, mine)
    found = [
        (thing, _told(thing, source, _status(thing, hit, network), hit.score if hit else None))
        for thing, hit in zip(objects, matches.found, strict=True)
    ]
    alarms = matches.false_alarms if source == "label" else ()
    return found + [(alarm, _told(alarm, "prediction", FALSE_ALARM, alarm.score)) for alarm in alarms]


def _status(thing: Object, hit: Object | None, network: Network) -> str | None:
    if hit:
        return "hit"
    return "miss" if network.classes is None or thing.name in network.classes else None


def _told(thing: Object, source: str, status: str | None, score: float | None) -> dict[str, Any]:
    box = dict(zip(("x1", "y1", "x2", "y2"), thing.box, strict=True))
    size = size_class(thing.box)
    return {"source": source, "class": thing.name, **box, "size": size, "status": status, "score": score}
