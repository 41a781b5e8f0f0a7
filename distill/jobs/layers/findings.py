"""What an analysis of layers finds: the layers with their prices, and how alike two networks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill.attention.layers import LayerInfo
from distill.attention.similarity import Likeness
from distill.jobs.layers.suggestions import Candidate

TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True)
class Costed:
    """A layer and its price: `seconds` for one image, and `share`, its part of the network's forward pass.

    `reach` is the part of the forward pass up to and including it. Of layers inside others, `seconds` and `share` are
    not measured (None), and `reach` is that of the outer one.
    """

    info: LayerInfo
    seconds: float | None
    share: float | None
    reach: float


@dataclass(frozen=True)
class Surveyed:
    """A network and its layers, in order of execution: `key` is "teacher" or "student", `seconds` a forward pass.

    `trained` is False where the weights are random.
    """

    key: str
    file: str
    task: str
    trained: bool
    parameters: int
    seconds: float
    layers: tuple[Costed, ...]


@dataclass(frozen=True)
class Compared:
    """Two networks on the same images: the rows of `likeness` are the teacher's layers, its columns the student's.

    `images` are the files; `candidates` all pairs that could be made, `suggested` those to make, best first.
    """

    teacher: tuple[LayerInfo, ...]
    student: tuple[LayerInfo, ...]
    likeness: Likeness
    images: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    suggested: tuple[Candidate, ...]

    @property
    def teacher_share(self) -> float | None:
        """The share of the teacher's forward pass that the suggested pairs need; None without any."""
        return max((pair.cost for pair in self.suggested), default=None)

    @property
    def outlined(self) -> tuple[tuple[int, int], ...]:
        """Row and column of each suggested pair."""
        rows, columns = ([layer.name for layer in side] for side in (self.teacher, self.student))
        return tuple((rows.index(pair.teacher), columns.index(pair.student)) for pair in self.suggested)


@dataclass(frozen=True)
class Findings:
    """All of it, for square images of `imgsz` pixels.

    `compared` is None for a single network; `notes` say what a reader must know; `skipped` are the images that could
    not be read, and why; `sources` are the settings it rests on.
    """

    networks: tuple[Surveyed, ...]
    imgsz: int
    sources: Mapping[str, object]
    compared: Compared | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
