"""What a comparison of networks leaves: figures, pictures, a page, all in one folder."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.jobs.seeing.tables import gate_lines, lines, write_tables
from distill.records import whole_folder, write_arrays, write_manifest
from distill.view.exhibit import Exhibit

PICTURES, REPORT, MAPS = "sheets", "report.html", "maps.npz"


@dataclass(frozen=True)
class Comparison:
    """What was seen: everything shown is in `exhibit`; `skipped` names the images that could not be read, and why.

    `notes` say what the figures cannot. `whole` are the volumes of which `exhibit` shows planes. It prints as a table,
    and in a notebook it shows itself as the report.
    """

    exhibit: Exhibit
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    manifest: Mapping[str, Any]
    whole: Exhibit | None = None

    def save(self, folder: str | Path, mode: str = "shared", opacity: float = 0.6) -> Path:
        """Write sheets/*.png, report.html, the tables, maps.npz and manifest.json into a new folder, and return it.

        `mode` is the sheets' scale, "shared", "raw" or "each"; `opacity`, 0 to 1, that of the maps over the picture.
        Raises InputError where something lies at `folder` already; then, as when stopped, nothing is written.
        """
        from distill.view.report.page import save_page
        from distill.view.sheet.drawing import save_sheets

        with whole_folder(Path(folder)) as staging:
            save_sheets(self.exhibit, staging / PICTURES, mode, opacity)
            save_page([self.exhibit], staging / REPORT)
            write_tables(self.exhibit.numbers, staging)
            write_arrays(staging / MAPS, arrays(self.whole or self.exhibit))
            write_manifest(staging, dict(self.manifest))
        return Path(folder)

    def __str__(self) -> str:
        count, thing = len((self.whole or self.exhibit).samples), "volume" if self.whole else "image"
        head = f"means over {count} {thing}{'s' if count != 1 else ''}"
        if self.exhibit.reference:
            head += "; distances are to the teacher's maps, 0 to 1.414"
        left_out = [f"left out: {file} ({why})" for file, why in self.skipped]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join(
            [
                head,
                lines(self.exhibit.numbers),
                *gate_lines(self.exhibit.numbers),
                *self._odd_pairs(),
                *notes,
                *left_out,
            ]
        )

    def _odd_pairs(self) -> Iterator[str]:
        """Whose layers are of different names: their own name does not say so."""
        for row in self.exhibit.rows:
            layers = {key: side.layer for key, side in row.sides.items()}
            if len(set(layers.values())) > 1:
                yield f"{row.name}: " + ", ".join(f"{key}'s {layer}" for key, layer in layers.items())

    def _repr_html_(self) -> str:
        from distill.view.report.page import page

        document = html.escape(page([self.exhibit]), quote=True)
        return f'<iframe srcdoc="{document}" style="width: 100%; height: 800px; border: 0" title="attention"></iframe>'


def arrays(exhibit: Exhibit) -> dict[str, np.ndarray]:
    """Every map on its native grid, (h, w) float16, divided by its root mean square: `image/P3/student`.

    `rms/image/P3/student` is what it was divided by (float32), so that raw values can be had from any of them. Maps of
    volumes are whole, (d, h, w).
    """
    found: dict[str, np.ndarray] = {}
    for sample in exhibit.samples:
        for row, sides in sample.maps.items():
            for key, values in sides.items():
                rms = np.sqrt(np.mean(np.square(values, dtype=np.float64)))
                found[f"{sample.name}/{row}/{key}"] = (values / (rms or 1.0)).astype(np.float16)
                found[f"rms/{sample.name}/{row}/{key}"] = np.array(rms, np.float32)
    return found
