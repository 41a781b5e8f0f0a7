"""What goes wrong in the middle: a loss that is not a number, memory that runs out, an exception, a proof that fails.

Afterwards the student is a plain Ultralytics network again, without hooks, and nothing of the user's is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import profile_ops, unwrap_model

import distill
from distill.adapters.ultralytics import rehearsal, session
from distill.adapters.ultralytics.checkpoints import read_checkpoint
from distill.adapters.ultralytics.trainers import DistillationMixin
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.errors import DistillError, InputError, ProofFailed
from distill.records import MANIFEST
from distill.teacher import Teacher

from .tiny import hooks, rows, same, strings_in, weights

Train = Callable[..., distill.TrainResult]
Watched = dict[str, list[Any]]


class Moment(NamedTuple):
    """A step of training: the wrapper that was in place, and where it believed to be."""

    wrapper: DistillingModule
    epoch: int
    step: int


Step = Callable[[Callable[[int, torch.Tensor], torch.Tensor]], list[Moment]]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Step:
    """step(change): in every training step `change(number, loss)` gets the student's own loss and gives what to use.

    Returns the steps that were made.
    """
    attach, forward, loss = DistillationMixin._attach, DistillingModule.forward, tasks.BaseModel.loss
    trainers: list[Any] = []
    inside: list[DistillingModule] = []

    def attached(self: Any) -> None:
        attach(self)
        trainers.append(self)

    def forwarded(self: DistillingModule, x: Any) -> Any:
        if all(self is not trainer.wrapped for trainer in trainers):  # one that is only timed
            return forward(self, x)
        inside.append(self)
        try:
            return forward(self, x)
        finally:
            inside.pop()

    def install(change: Callable[[int, torch.Tensor], torch.Tensor]) -> list[Moment]:
        moments: list[Moment] = []

        def changed(self: Any, *args: Any) -> Any:
            total, items = loss(self, *args)
            if inside:
                moments.append(Moment(inside[0], inside[0].epoch, inside[0].step))
                total = change(len(moments), total)
            return total, items

        monkeypatch.setattr(DistillationMixin, "_attach", attached)
        monkeypatch.setattr(DistillingModule, "forward", forwarded)
        monkeypatch.setattr(tasks.BaseModel, "loss", changed)
        return moments

    return install


def check_plain(trainer: Any) -> None:
    """The trainer holds what Ultralytics' own would hold."""
    assert type(trainer.model) is tasks.DetectionModel and type(trainer.ema.ema) is tasks.DetectionModel
    assert trainer.wrapped is None
    assert not hooks(trainer.model) and not hooks(trainer.ema.ema)


def check_table(table: Path, epochs: int) -> None:
    listed = rows(table)
    assert [row["epoch"] for row in listed] == list(range(1, epochs + 1))
    for row in listed:
        for name in ("at_loss", "at_P3", "at_P4", "at_P5", "cos_P3"):
            assert row[f"train/{name}"] > 0


# ---- a loss that is not a number


def test_training_recovers_from_a_loss_that_is_not_a_number(
    train: Train, teacher: Path, watched: Watched, step: Step
) -> None:
    """In epoch 2, for from the first epoch Ultralytics cannot: there is no checkpoint to go back to."""

    def spoil(number: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * float("nan") if number == 4 else loss  # two steps an epoch

    steps = step(spoil)
    result = train(teacher=teacher, epochs=3, nbs=4)
    trainer = watched["on_train_end"][0]
    assert len(watched["on_train_epoch_start"]) == 4  # one of them twice
    assert [moment[1:] for moment in steps] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert len({id(moment.wrapper) for moment in steps}) == 1  # it has stayed in place
    check_table(result.table, 3)
    check_plain(trainer)
    assert all(tensor.isfinite().all() for file in (result.best, result.last) for tensor in weights(file).values())
    assert not [text for text in strings_in(result.last) if text.startswith("distill.")]

    used = trainer.session.distiller.teacher
    fresh = session.teacher_of(trainer.own).module.to(next(used.module.parameters()).dtype)
    assert same(used.module.state_dict(), fresh.state_dict())
    assert not used.module.training and not any(p.requires_grad for p in used.module.parameters())


# ---- memory


@pytest.mark.parametrize("number", [1, 2])
def test_out_of_memory_halves_the_batch(number: int, train: Train, teacher: Path, watched: Watched, step: Step) -> None:
    """In the first step, when nothing is known of the losses yet, and in the second."""

    def fail(now: int, loss: torch.Tensor) -> torch.Tensor:
        if now == number:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss

    steps = step(fail)
    result = train(teacher=teacher, epochs=2)
    trainer = watched["on_train_end"][0]
    assert trainer.batch_size == trainer.args.batch == 2
    again = [(epoch, i) for epoch in range(2) for i in range(4)]  # from the start, in four steps of two images
    assert [moment[1:] for moment in steps] == [*((0, i) for i in range(number)), *again]
    check_table(result.table, 2)
    check_plain(trainer)
    assert [row["train/at_loss"] for row in rows(result.table)] == pytest.approx(
        [sum(row[f"train/at_{name}"] for name in ("P3", "P4", "P5")) for row in rows(result.table)], abs=1e-4
    )
    content = torch.load(result.last, map_location="cpu", weights_only=False)
    assert content["train_args"]["batch"] == 2


def test_autobatch_measures_the_teacher_too(
    train: Train, teacher: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: on a CPU Ultralytics takes 16 without measuring, so what it would do is done here."""
    runs = 0
    call = Teacher.__call__

    def counted(self: Teacher, images: torch.Tensor) -> Any:
        nonlocal runs
        runs += 1
        return call(self, images)

    monkeypatch.setattr(Teacher, "__call__", counted)
    given: list[nn.Module] = []

    def check_train_batch_size(model: Any, imgsz: int, amp: Any, batch: float, **_: Any) -> int:
        assert batch == -1
        given.append(model)
        copied = deepcopy(model).train()
        assert type(unwrap_model(copied)) is tasks.DetectionModel and unwrap_model(copied) is not unwrap_model(model)
        assert copied.yaml == unwrap_model(model).yaml  # autobatch reads the channels there
        assert len(copied.stride) == 3 and len(copied.names) == 6  # profile_ops, on a GPU
        before, deterministic = runs, torch.are_deterministic_algorithms_enabled()
        profile = profile_ops([torch.zeros(2, 3, imgsz, imgsz)], copied, n=1, device="cpu", max_num_obj=4)
        assert profile[0] is not None and runs - before == 2  # once to count operations, once to measure
        assert not hooks(copied) and torch.are_deterministic_algorithms_enabled() == deterministic
        return 2

    monkeypatch.setattr("ultralytics.engine.trainer.check_train_batch_size", check_train_batch_size)
    loaders: list[type] = []
    build = DistillationMixin._build_train_pipeline
    monkeypatch.setattr(
        DistillationMixin, "_build_train_pipeline", lambda self: (loaders.append(type(self.model)), build(self))[1]
    )
    result = train(teacher=teacher, batch=-1)
    assert len(given) == 1 and given[0] is not unwrap_model(given[0])
    assert loaders == [tasks.DetectionModel]  # the student again as soon as the batch is known
    assert watched["on_train_end"][0].batch_size == 2
    check_plain(watched["on_train_end"][0])
    check_table(result.table, 1)


def test_autobatch_of_a_plain_run_is_left_alone(
    train: Train, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "ultralytics.engine.trainer.check_train_batch_size", lambda model, **_: given.append(type(model)) or 2
    )
    train(batch=-1)
    assert given == [tasks.DetectionModel] and watched["on_train_end"][0].batch_size == 2


# ---- exceptions


def test_an_exception_leaves_a_plain_student(
    train: Train, teacher: Path, watched: Watched, step: Step, tmp_path: Path
) -> None:
    """In the middle of a forward pass, where the hooks are."""
    seen: list[list[str]] = []

    def fail(number: int, loss: torch.Tensor) -> torch.Tensor:
        seen.append(hooks(trainer().model))
        if number == 3:
            raise ZeroDivisionError("in the middle")
        return loss

    def trainer() -> Any:
        return watched["on_train_start"][0]

    step(fail)
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        train(teacher=teacher, epochs=3)
    assert seen[2] == ["module.model.5", "module.model.6", "module.model.7"]
    check_plain(trainer())
    used = trainer().session.distiller.teacher.module
    assert not hooks(used) and not used.training
    folder = trainer().save_dir
    assert (folder / "weights/last.pt").is_file() and not (folder / MANIFEST).read_text().count('"finished": true')


def test_a_finished_run_leaves_a_plain_student(train: Train, teacher: Path, watched: Watched) -> None:
    train(teacher=teacher)
    check_plain(watched["on_train_end"][0])
    assert not hooks(watched["on_train_end"][0].session.distiller.teacher.module)


# ---- a proof that fails, a folder that exists


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that fails at the very last."""

    def prove(*args: Any, **kwargs: Any) -> Any:
        raise ProofFailed("for the test")

    monkeypatch.setattr(session, "prove", prove)


def test_a_proof_that_fails_leaves_no_folder(train: Train, teacher: Path, failing: None, tmp_path: Path) -> None:
    for name in (None, "mine"):
        with pytest.raises(ProofFailed):
            train(teacher=teacher, name=name)
        assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("error", [ProofFailed("for the test"), KeyboardInterrupt(), MemoryError("for the test")])
def test_a_folder_that_is_used_again_loses_nothing_before_training_begins(
    error: BaseException, train: Train, teacher: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ultralytics would have deleted results.csv by then."""
    first = train(name="mine")
    for name in ("notes.txt", "labels.jpg"):
        (first.folder / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def prove(*args: Any, **kwargs: Any) -> Any:
        assert not (first.folder / "weights/last.pt").exists()  # of two runs, one would be resumed for the other
        raise error

    monkeypatch.setattr(session, "prove", prove)
    with pytest.raises(DistillError if not isinstance(error, MemoryError) else MemoryError):
        train(teacher=teacher, name="mine", exist_ok=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_replaces_the_one_before_it_and_nothing_else(train: Train, teacher: Path, tmp_path: Path) -> None:
    first = train(name="mine", epochs=2, save_period=1)
    (first.folder / "notes.txt").write_text("mine")
    (first.folder / "weights" / "kept.txt").write_text("not a folder to keep things in")
    with pytest.raises(InputError, match="exist_ok"):
        train(teacher=teacher, name="mine")
    second = train(teacher=teacher, name="mine", exist_ok=True)
    assert second.folder == first.folder
    assert (second.folder / "notes.txt").read_text() == "mine"
    check_table(second.table, 1)
    assert sorted(path.name for path in (second.folder / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_the_end_of_a_run_is_read_as_any_checkpoint_is(
    train: Train, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in weights/best.pt by then: it is not trusted because of its place."""
    trusted: list[bool] = []

    def read(path: Any, argument: str, trust: bool = False) -> Any:
        trusted.append(trust)
        return read_checkpoint(path, argument, trust)

    monkeypatch.setattr(session, "read_checkpoint", read)
    train(teacher=teacher)
    assert trusted and not any(trusted)


def test_what_is_measured_last_is_the_checkpoint(train: Train, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the network in the trainer's hands, which NaN recovery and early stopping may have left behind."""
    compared: list[dict[str, torch.Tensor]] = []
    compare = rehearsal.compare
    monkeypatch.setattr(
        rehearsal,
        "compare",
        lambda t, module, d: (compared.append(deepcopy(module.state_dict())), compare(t, module, d))[1],
    )
    result = train(teacher=teacher, epochs=2)
    assert same(
        {k: v.float() for k, v in compared[-1].items()}, {k: v.float() for k, v in weights(result.best).items()}
    )
