"""What is put on record of a comparison, and how it is headed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.records import command_line, sha256, versions
from distill.view.exhibit import TEACHER, Exhibit, Network


def heading(networks: Sequence[Network]) -> str:
    """The students, and the teacher that they are held against."""
    first, *others = (network.title for network in networks)
    if networks[0].key != TEACHER:
        return " and ".join((first, *others))
    return f"{' and '.join(others)} against {first}" if others else first


def manifest_of(
    exhibit: Exhibit,
    skipped: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
    notes: Sequence[str],
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that says where the figures come from; versions of further `packages` too."""
    return {
        "command": command_line(),
        "versions": versions(packages),
        **settings,
        "networks": {n.key: {"file": n.file, "sha256": sha256(n.file)} for n in exhibit.networks},
        "pairs": [
            {
                "name": row.name,
                "kind": row.kind,
                **{
                    key: {
                        "layer": side.layer,
                        "grid": side.grid,
                        "stride": side.lattice.stride,
                        "offset": side.lattice.offset,
                        "agreement": side.lattice.agreement,
                    }
                    for key, side in row.sides.items()
                },
            }
            for row in exhibit.rows
        ],
        "images": {sample.name: sample.file for sample in exhibit.samples},
        "skipped": dict(skipped),
        "notes": list(notes),
    }
