"""Settings of a training run: what each means, what it may be, and what it is when nothing is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from distill import ranges
from distill.errors import InputError

DEFAULT_SHARE = 0.2  # of the task's gradient

NETWORKS, ATTENTION, FEATURES, OUTPUTS = "networks and data", "attention", "features", "the head's outputs"
COURSE = "when and how strongly"
TEACHER, GATING, UNETS, RUN = "the teacher's pass", "attention gates", "U-Nets", "the run"


def _option(
    group: str, help: str, default: Any = None, metavar: str | None = None, within: ranges.Range | None = None
) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "group": group, "within": within})


@dataclass(frozen=True)
class Settings:
    """Everything that is ours in a run; what belongs to the trainer (`epochs=25`) is kept apart.

    Raises InputError for a value out of range, and for one that has no effect beside the others.
    """

    student: str | None = _option(
        NETWORKS,
        "network to train: a .yaml, a .pt to continue from, a pruned .pt; unet:8, attention-unet:8 (8: first width)",
        metavar="FILE",
    )
    data: str | None = _option(
        NETWORKS, "data.yaml, a folder, dataset.json (volumes), or 'scenes' or 'volumes' (generated)", metavar="FILE"
    )
    teacher: str | None = _option(
        NETWORKS, "trained network to learn from (.pt, .ckpt); without it, plain training", metavar="FILE"
    )
    init: str = _option(
        NETWORKS,
        "the student's first weights: fit (its layers fitted to a larger teacher of its family by least squares), "
        "teacher (the teacher's strongest channels), none (as they are), best (a trained student's own or fitted ones, "
        "whichever win a short race), or auto (a student from a yaml: fit, a trained one: best, where they can be)",
        "auto",
        "WHAT",
        within=ranges.one_of(ranges.INITS),
    )
    layers: tuple[str, ...] = _option(
        ATTENTION,
        "what to pair: roles (P3,P4,P5,B3..), numbers (16), dotted names, globs, student:teacher, @2 for a weight; "
        "default: every head level that both have",
        default=(),
        metavar="LIST",
    )
    weight: float | None = _option(
        ATTENTION,
        "fixed weight of the attention loss; default: measured, see --share",
        metavar="W",
        within=ranges.LEAST_ZERO,
    )
    share: float = _option(
        ATTENTION,
        "gradient of the attention terms at the tapped layers, as a share of the task's",
        DEFAULT_SHARE,
        "S",
        within=ranges.POSITIVE,
    )
    p: float = _option(ATTENTION, "power of the energy maps, sum |F|^p", 2.0, "P", within=ranges.POSITIVE)
    form: str = _option(
        ATTENTION,
        "distance: l2 (norm of the difference), squared, mean (the authors' code), or pearson (1 - correlation)",
        "l2",
        "FORM",
        within=ranges.one_of(ranges.FORMS),
    )
    focus: str = _option(
        ATTENTION,
        "where attention counts: none (everywhere alike), boxes (labelled objects, each the same), or teacher (its "
        "confidence)",
        "none",
        "WHERE",
        within=ranges.one_of(ranges.FOCUSES),
    )
    features: tuple[str, ...] = _option(
        FEATURES,
        "transfer features, as far as a linear map of the student's can tell the teacher's: what to pair, as --layers; "
        "none; auto: attention's, for a trained or fitted student, if a short trial finds that they do no harm",
        default=ranges.USUAL,
        metavar="LIST",
    )
    features_weight: float | None = _option(
        FEATURES,
        "fixed weight of the feature loss; default: measured, see --features-share",
        None,
        "W",
        ranges.POSITIVE,
    )
    features_share: float = _option(
        FEATURES,
        "gradient of the feature loss at its layers, as a share of the task's",
        1.0,
        "S",
        within=ranges.POSITIVE,
    )
    response: tuple[str, ...] = _option(
        OUTPUTS,
        "transfer a detection head's outputs: class scores by bce, kl, cwd or pkd, and boxes (bce,boxes); none; "
        "auto: bce,boxes as far as both heads have them",
        default=ranges.USUAL,
        metavar="LIST",
        within=(
            ranges.of_responses,
            f"one of {', '.join(ranges.RESPONSES[:-1])}, and boxes (bce,boxes), or auto, or none",
        ),
    )
    response_weight: float | None = _option(
        OUTPUTS,
        "fixed weight of each response loss; default: measured, see --response-share",
        metavar="W",
        within=ranges.POSITIVE,
    )
    response_share: float | None = _option(
        OUTPUTS,
        "gradient of each response loss at the head's inputs, as a share of the task's; default: 0.2, or 1 where a "
        "trial let features in",
        None,
        "S",
        within=ranges.POSITIVE,
    )
    temperature: float = _option(
        OUTPUTS, "softens the scores of --response kl and cwd", 1.0, "T", within=ranges.POSITIVE
    )
    schedule: str = _option(
        COURSE,
        "how strongly to distil over the epochs: constant, or cosine (down to --floor)",
        "constant",
        "SHAPE",
        within=ranges.one_of(ranges.SCHEDULES),
    )
    warmup: float = _option(COURSE, "epochs over which distillation sets in", 0.0, "N", within=ranges.LEAST_ZERO)
    floor: float = _option(
        COURSE, "what --schedule cosine ends with, as a share of the full weight", 0.1, "S", within=ranges.SHARE
    )
    stop_with_mosaic: bool = _option(
        COURSE, "no distillation in the last epochs, those without mosaic (close_mosaic)", False
    )
    hold: bool = _option(
        COURSE, "keep measured weights as they were before the first epoch; default: follow slowly", False
    )
    shuffled: bool = _option(COURSE, "a control: the teacher looks at another image of the batch", False)
    teacher_imgsz: int | None = _option(
        TEACHER, "image size for the teacher; default: the student's", metavar="PIXELS", within=ranges.SIDE
    )
    teacher_fraction: float = _option(
        TEACHER,
        "compare on a random part of each batch (0.5: half, at half of the cost)",
        1.0,
        "F",
        within=ranges.PART,
    )
    teacher_precision: str = _option(
        TEACHER,
        "auto (bfloat16 where equal and faster), float32, or bfloat16",
        "auto",
        "TYPE",
        within=ranges.one_of(ranges.PRECISIONS),
    )
    gates: str = _option(
        GATING,
        "what the student's attention gates are supervised by: none, truth (the labels), teacher (its gates, or its "
        "energy), or shuffled (the teacher on another image, a control)",
        "none",
        "WHAT",
        within=ranges.one_of(ranges.GATES),
    )
    gate_layers: tuple[str, ...] = _option(
        GATING, "which gates --gates supervises (G2,G3); default: all of the student's", default=(), metavar="LIST"
    )
    gates_weight: float | None = _option(
        GATING,
        "weight of each gate's loss, which is 1 for the best constant; default: measured; a U-Net's 0.1",
        metavar="W",
        within=ranges.POSITIVE,
    )
    gated_neck: bool = _option(GATING, "put attention gates into a detector's neck", False)
    logits: float | None = _option(
        UNETS,
        "also transfer a U-Net's class scores, softened by this temperature (2)",
        metavar="T",
        within=(ranges.POSITIVE[0], "a temperature above 0"),
    )
    loss: str | None = _option(
        UNETS,
        "a U-Net's own loss: dice-ce (the default; Dice and cross-entropy) or dice",
        metavar="LOSS",
        within=ranges.one_of(ranges.LOSSES),
    )
    heatmaps: tuple[str, ...] = _option(
        RUN,
        "keep the maps of fixed validation images: every N epochs (10), or at these (3,6,10,60)",
        default=(),
        metavar="LIST",
        within=ranges.EPOCHS,
    )
    device: str | None = _option(RUN, "cpu, 0, 0,1, mps; default: the first GPU, else the CPU", metavar="DEVICE")
    cpu_bfloat16: bool = _option(
        RUN,
        "train a detector in mixed precision on a CPU: faster where it has bfloat16 units (AMX, avx512_bf16)",
        False,
    )
    seed: int = _option(RUN, "seed of the run", 0, "N", within=ranges.SEED)
    name: str | None = _option(RUN, "name of the run folder; default: train, numbered", metavar="NAME")
    project: str | None = _option(RUN, "folder of run folders; default: ./runs/distill", metavar="DIR")
    trust: bool = _option(RUN, "run code that a checkpoint or yaml carries: only for files you made or trust", False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, within = getattr(self, setting.name), setting.metadata["within"]
            if value is not None and within is not None and not within[0](value):
                self._refuse(setting.name, f" is out of range: {within[1]}")
        self._check_effects()

    def _check_effects(self) -> None:
        """Raises InputError for a setting that has no effect beside the others."""
        if self.response_weight is not None and not self.response:
            self._refuse("response_weight", ": without --response it has no effect")
        if self.temperature != 1 and not {"kl", "cwd"} & set(self.response):
            self._refuse("temperature", ": it softens --response kl and cwd, which is not asked for")
        if self.shuffled and self.gates == "shuffled":
            self._refuse("shuffled", ": --gates shuffled does it already: twice would be the true teacher again")
        if self.floor != Settings.floor and self.schedule != "cosine":
            self._refuse("floor", ": without --schedule cosine it has no effect")
        if self.response_share is not None and (not self.response or self.response_weight is not None):
            self._refuse("response_share", ": without --response, or beside --response-weight, it has no effect")
        if self.features_share != Settings.features_share and (not self.features or self.features_weight is not None):
            self._refuse("features_share", ": without --features, or beside --features-weight, it has no effect")
        if not self.features and self.features_weight is not None:
            self._refuse("features_weight", ": without --features it has no effect")
        if self.layers == ranges.NO_PAIRS:
            alone = ("share", "p") if self.gates == "none" else ()  # gates have these too
            for name in ("weight", "form", "focus", *alone):
                if getattr(self, name) != getattr(Settings, name):
                    self._refuse(name, ": with --layers none it has no effect")
        if self.gates == "none":
            for name in ("gates_weight", "gate_layers"):
                if getattr(self, name):
                    self._refuse(name, ": without --gates it has no effect")

    @property
    def named_features(self) -> tuple[str, ...]:
        """The features that are asked for by name: none where they are on trial."""
        return () if self.features == ranges.USUAL else self.features

    def _refuse(self, name: str, why: str) -> None:
        value = getattr(self, name)
        shown = ",".join(value) if isinstance(value, tuple) else repr(value)
        raise InputError(f"{name}={shown}{why}")

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for YAML and for the trainer's arguments."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


OF_A_TEACHER = (ATTENTION, FEATURES, OUTPUTS, COURSE, TEACHER)
TEACHING = {"init"} | {one.name for one in fields(Settings) if one.metadata["group"] in OF_A_TEACHER}


def due(heatmaps: Sequence[str], epoch: int) -> bool:
    """Are maps kept after this epoch (from 1)? One number means every so many epochs, several mean just these."""
    epochs = [int(text) for text in heatmaps]
    return epoch % epochs[0] == 0 if len(epochs) == 1 else epoch in epochs
