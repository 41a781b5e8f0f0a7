"""What each of Ultralytics' trainers gains: a teacher beside the student, and gates in its neck."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, YAML
from ultralytics.utils.torch_utils import unset_deterministic

from distill.adapters.ultralytics import fitting
from distill.adapters.ultralytics.columns import figures, without_ours
from distill.adapters.ultralytics.cpu import InBfloat16, check_cpu, in_precision
from distill.adapters.ultralytics.gating import gate_neck, take_gates
from distill.adapters.ultralytics.inheriting import inherit
from distill.adapters.ultralytics.pairing import Seen, digest_of_weights
from distill.adapters.ultralytics.rehearsal import student_of
from distill.adapters.ultralytics.session import Session, read_teacher, teacher_of
from distill.adapters.ultralytics.staging import keep_first, staged
from distill.adapters.ultralytics.starting import FITTED, INHERITED, MEASURED
from distill.adapters.ultralytics.students import adopted
from distill.adapters.ultralytics.supervision import taught
from distill.adapters.ultralytics.trainer_settings import few_steps
from distill.adapters.ultralytics.transfer import follower_of, terms_of
from distill.adapters.ultralytics.wrapper import DistillingModule, WithTeacher
from distill.guard import Guard
from distill.modes import same_randomness
from distill.records import keep_epochs

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as Base
else:  # the task's trainer stands behind the mixin
    Base = object

KEY = "distill"  # the one argument of ours on `trainer.args`: a plain dict, which survives resume and DDP's children


class _Complete(Exception):
    """All epochs of a resumed run are done; only the end is missing."""


class DistillationMixin(Base):
    """What a task's trainer gains: a teacher read beside the student, the proof, records, whole checkpoints.

    Without a teacher in its settings it trains plainly. Each method that it overrides calls the original.
    """

    per_image = True  # the task's loss is multiplied by the batch size
    ema: Any
    model: Any  # of Ultralytics' own attributes, those that are set here too
    wdir: Path
    last: Path
    best: Path

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        overrides = dict(overrides or {})
        settings = overrides.pop(KEY, None)  # Ultralytics refuses keys that it does not know
        super().__init__(cfg, overrides, _callbacks)
        if settings is not None:
            setattr(self.args, KEY, settings)
        self.own: dict[str, Any] = getattr(self.args, KEY, {})
        self.session: Session | None = None
        self.seen = Seen()
        self.complete = False
        self.compiled: Any = False
        check_cpu(self)
        if RANK in {-1, 0}:
            YAML.save(self.save_dir / "args.yaml", vars(self.args))

    # ---- before training

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """A pruned student, whose weights do not fit its yaml, is trained as it is; Ultralytics would rebuild it.

        A neck is gated where that was asked for, and stays gated where the student's is. A student that starts as a
        part of its teacher becomes it here, before the EMA and DDP's copies are made.
        """
        own = weights is not None and cfg is weights.yaml  # not weights that `pretrained=` brings for another yaml
        student = adopted(weights, self.data, self.args) if own else None
        model: nn.Module = super().get_model(cfg, weights, verbose) if student is None else student
        if self.own.get("gated_neck"):  # asked for, or found in the student
            gate_neck(model, self.args.seed)
            if weights is not None:
                take_gates(model, weights)
        if self.own.get("init") == INHERITED and weights is None:  # a run that is resumed brings its weights
            with same_randomness():
                teacher = read_teacher(self.own, self.own["trust"]).module
                self.own["initialised"] = inherit(model, teacher, self.data["names"]).as_dict()
        return model

    def get_validator(self) -> Any:
        """The validator does not know our key either."""
        own = self.args.__dict__.pop(KEY, None)
        try:
            return super().get_validator()
        finally:
            if own is not None:
                setattr(self.args, KEY, own)

    def auto_batch(self, *args: Any, **kwargs: Any) -> int:
        """Ultralytics profiles `self.model`: give it the teacher's forward and memory too."""
        if not taught(self.own):
            return int(super().auto_batch(*args, **kwargs))
        student = self.model
        self.model = WithTeacher(student, teacher_of(self.own).to(self.device))
        try:
            return int(super().auto_batch(*args, **kwargs))
        finally:
            self.model = student

    def _setup_train(self) -> None:
        super()._setup_train()
        if (self.own.get("fitted") or {}).get("start") == fitting.FITTED:  # resumed runs and other ranks too
            fitting.keep_up(student_of(self))
        with same_randomness():
            self.own.setdefault("start", digest_of_weights(student_of(self)))
            self.session = Session.begin(self)
            first = self.own.get("first_fitness", 0.0)
            if first > 0 and not self.resume:
                keep_first(self, first)
        self._attach()
        self.model = in_precision(self.model, self.own)
        if self.complete:
            raise _Complete

    def _attach(self) -> None:
        distiller = self.session.distiller if self.session else None
        if distiller is None:
            return
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        inner = self.model.module if parallel else self.model
        follower = follower_of(self.own, distiller)
        first = self.session.proof.cosines if self.session and self.session.proof else {}
        guard = Guard(self.own.setdefault("directions", {}), first, distiller.titles)
        readable = not self.args.compile  # gradients at layers cannot be read through a compiled graph
        wrapped = DistillingModule(
            inner, distiller, self.per_image, follower if readable else None, guard if readable else None
        )
        if parallel:
            self.model.module = wrapped
        else:
            self.model = wrapped
        # the compiled path of the loop calls the loss of the unwrapped model, past us: the wrapper does it instead
        self.compiled, self.args.compile = self.args.compile, False

    def _detach(self) -> None:
        if isinstance(self.model, InBfloat16):
            self.model = self.model.module
        wrapped = self.wrapped
        if wrapped is None:
            return
        if self.model is wrapped:
            self.model = wrapped.module
        else:
            self.model.module = wrapped.module
        self.args.compile = self.compiled

    @property
    def wrapped(self) -> DistillingModule | None:
        """The wrapper, while it is in place."""
        model = self.model
        while model is not None and not isinstance(model, DistillingModule):
            model = getattr(model, "module", None)
        return model

    # ---- during training

    def _do_train(self) -> None:
        try:
            super()._do_train()
        except _Complete:
            LOGGER.info("All epochs are done: finishing the run.")
            self.final_eval()
            if RANK in {-1, 0}:
                if self.args.plots:
                    self.plot_metrics()
                self.run_callbacks("on_train_end")
        finally:
            self.leave()

    def leave(self) -> None:
        """Give back what a run, or a trial of one, took: the wrapper, the loaders' workers, deterministic mode."""
        self._detach()
        loaders: list[Any] = [getattr(self, "train_loader", None), getattr(self, "test_loader", None)]
        for loader in loaders:
            if hasattr(loader, "close"):
                loader.close()
        unset_deterministic()

    def _model_train(self) -> None:
        super()._model_train()
        if (wrapped := self.wrapped) is not None:
            wrapped.start_epoch(getattr(self, "epoch", 0), len(self.train_loader))

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Notes what is shown, as it comes from the loader."""
        if self.session is not None:
            self.seen.add(batch)
        prepared: dict[str, Any] = super().preprocess_batch(batch)
        return prepared

    def _build_train_pipeline(self) -> None:
        with self._original_compile():  # an out-of-memory retry rebuilds the loaders, whose shape depends on it
            super()._build_train_pipeline()
        if self.own and not self.resume and RANK in {-1, 0} and (line := few_steps(self)):
            LOGGER.info(line)
        if self.own.get("init") in (FITTED, MEASURED) and not self.resume and self.ema is None:
            with same_randomness():  # the EMA is made of what comes out of it
                fitting.fit_student(self)

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Our losses exist in training only; validation would list them as zeros."""
        items = super().label_loss_items(loss_items, prefix)
        return items if prefix == "train" else without_ours(items, prefix, terms_of(self.own))

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Adds our figures to results.csv, closes the digest of what the epoch showed, and keeps maps where asked."""
        if (wrapped := self.wrapped) is not None:
            metrics = {**metrics, **figures(wrapped)}
        super().save_metrics(metrics)
        self.own.setdefault("order", []).append(self.seen.close())
        if self.session is not None:
            self.session.keep_maps(self, self.epoch + 1)

    def save_model(self) -> bool:
        """Checkpoints are written aside and renamed: whenever the process dies, last.pt is whole.

        Our key is saved in `train_args`, which Ultralytics strips in the end; the network's own copy goes without.
        """
        with staged(self):
            return self.write_checkpoints()

    def write_checkpoints(self) -> bool:
        """last.pt, and best.pt where this epoch is the best one, where the trainer's paths point."""
        if self.fitness == self.best_fitness:
            self.own["first_is_best"] = False
        with self._original_compile():
            if hasattr(self.ema.ema, "args"):
                self.ema.ema.args = type(self.args)(**{k: v for k, v in vars(self.args).items() if k != KEY})
            return bool(super().save_model())

    def resume_training(self, ckpt: Any) -> None:
        if not self.resume:
            return
        done = ckpt["epoch"] + 1
        best = (ckpt.get("stopper") or {}).get("best_epoch") or done  # 0: never validated
        self.complete = done >= self.epochs or done - best >= self.stopper.patience
        if self.complete:
            self.epoch, self.best_fitness = ckpt["epoch"], ckpt.get("best_fitness")
        else:
            super().resume_training(ckpt)
        if RANK in {-1, 0}:
            keep_epochs(self.csv, done)

    # ---- after training

    def final_eval(self) -> None:
        """Ultralytics strips the checkpoints in place and validates best.pt; ours are stripped aside, then renamed."""
        folder = self.wdir
        with staged(self, copies=True):
            super().final_eval()
            if self.session is not None:  # before the rename, so that a run killed here is simply finished on resume
                with same_randomness():
                    self.session.end(self, folder)

    @contextmanager
    def _original_compile(self) -> Iterator[None]:
        current, self.args.compile = self.args.compile, self.compiled or self.args.compile
        try:
            yield
        finally:
            self.args.compile = current
