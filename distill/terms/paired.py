"""A way of teaching of your own: a loss between the features of paired layers, in one file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from torch import Tensor

from distill.attention.pairs import COLUMN, Pair, pair_layers
from distill.config import kind_of
from distill.errors import InputError
from distill.settings import DEFAULT_SHARE, Settings
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.method import Figures, Method, Networks, Planned, read_pairs
from distill.text import Table, figure

TAKEN = ("at", "ft", "cos", "dist", "r", "r2", "std", "agree", "iou", "weight", "with")  # begin columns of ours


@dataclass
class PairedTerm(Method):
    """Subclass it, give it a `name`, and write `compare`; annotated fields become options of the command line.

    `layers` is what to pair, as `--layers` has it (by default each head level that both networks have); `weight` a
    fixed weight, or None where the gradient of the loss at these layers is to be `share` of the task's. The name is an
    identifier, and its first letters begin the log columns. `figures` are the names of what `compare` gives besides.

    A subclass is a dataclass, decorated or not. Raises InputError for a name that cannot be, for a field that is not a
    `str`, `int`, `float`, `bool` or `tuple[str, ...]`, and for a weight or a share that is not above 0.
    """

    figures: ClassVar[tuple[str, ...]] = ()

    layers: tuple[str, ...] = ()
    weight: float | None = None
    share: float = DEFAULT_SHARE

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        inherited = {known.name: known.type for known in fields(cls)}
        bare = {name: inherited[name] for name in vars(cls).keys() & inherited.keys()}
        cls.__annotations__ = {**bare, **vars(cls).get("__annotations__", {})}  # `share = 0.5` is a field's default
        dataclass(cls)

    def __post_init__(self) -> None:
        name = str(getattr(self, "name", ""))
        if not name.isidentifier() or name in TAKEN:
            raise InputError(f"{type(self).__name__}: a term needs a name of its own, such as name = 'contrast'")
        for known in fields(self):
            kind_of(known.type, f"{name}.{known.name}")
        for which, value in (("weight", self.weight), ("share", self.share)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{self.name}_{which}={value!r} is out of range: a number above 0")
        self.layers = tuple(self.layers)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor | tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one pair, a scalar mean over the batch; or that, and `figures`.

        Features are (B, C, *S) in float32, each network's with channels and a grid of its own; the student's have a
        gradient.
        """

    def asked(self, settings: Settings) -> bool:
        return True

    def idle(self, settings: Settings) -> Sequence[str]:
        return []  # `plan` says what is missing

    def as_planned(self, planned: Planned) -> PairedTerm:
        return replace(self, **planned["settings"])

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        if settings.teacher is None:
            raise InputError(f"the term '{self.name}' has nothing to compare with: name a teacher, or leave it out")
        pairs = pair_layers(*networks.layers, self.layers)
        return {"pairs": [asdict(pair) for pair in pairs], "settings": asdict(self)}, ()

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        return [_OfPairs(self, read_pairs(planned))]

    def fixed_weight(self, settings: Mapping[str, Any]) -> float | None:
        return self.weight

    def wanted_share(self, settings: Mapping[str, Any]) -> float:
        return self.share

    def rows(self, planned: Planned) -> list[tuple[str, Pair]]:
        return [(self.column(pair), pair) for pair in read_pairs(planned)]

    def column(self, pair: Pair) -> str:
        """The log column of a pair's loss."""
        return f"{self.name[: COLUMN - 1 - len(pair.name)]}_{pair.name}"

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        shown = ("loss", *self.figures)
        heads = [head for what in shown for head in (f"{what} before", "after")]
        rows: list[tuple[str, ...]] = [(self.name, "student", "teacher", *heads)]
        for column, pair in self.rows(planned):
            keys = [f"{self.name}_{what}_{pair.name}" for what in shown]
            cells = [figure(found.get(key)) for key in keys for found in (before, after)]
            rows.append((column, pair.student, pair.teacher, *cells))
        return Table(rows, "on validation images")


class _OfPairs(Term):
    """What a run makes of a `PairedTerm`."""

    def __init__(self, method: PairedTerm, pairs: Sequence[Pair]) -> None:
        self.name = method.name
        self.pairs = tuple(pairs)
        self.at = tuple(pair.student for pair in pairs)
        self.columns = {method.column(pair): f"{method.name} {pair.name}" for pair in pairs}
        self.logged = tuple(f"{method.name}_{figure}_{pair.name}" for pair in pairs for figure in method.figures)
        self._method = method

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.at, tuple(pair.teacher for pair in self.pairs)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        readings = {}
        for column, pair in zip(self.columns, self.pairs, strict=True):
            mine, theirs = student.features[pair.student].float(), teacher.features[pair.teacher].float()
            found = self._method.compare(mine, theirs, batch)
            loss, figures = found if isinstance(found, tuple) else (found, {})
            if set(figures) != set(self._method.figures):
                told = ", ".join(figures) or "none"
                raise InputError(f"the term '{self.name}' gives the figures {told}: not those that its `figures` name")
            shown = {"loss": loss.detach(), **{name: figure.detach() for name, figure in figures.items()}}
            named = {f"{self.name}_{name}_{pair.name}": figure for name, figure in shown.items()}
            readings[column] = Reading(pair.weight * loss, named)
        return readings
