"""The errors a user can meet: one line each, that says what is wrong, where, and how to mend it."""

from collections.abc import Sequence


class DistillError(Exception):
    """Base of every error this package raises on purpose.

    The command line prints the message alone and leaves with `exit_code`.
    """

    exit_code = 2


class InputError(DistillError):
    """Something the user gave cannot be used: a file, a setting, a layer, a combination. Nothing was written."""


class SilentTapError(DistillError):
    """A layer that should have been read did not run, so its attention map does not exist."""

    exit_code = 1


class ProofFailed(DistillError):
    """A check before training showed that distillation would not take place as asked; `checks` holds them all."""

    exit_code = 1

    def __init__(self, message: str, checks: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.checks = tuple(checks)


class TrainingFailed(DistillError):
    """Training broke off for a reason that lies outside this process."""

    exit_code = 1


class Interrupted(DistillError):
    """The user stopped the command (Ctrl-C); the message says how to go on."""

    exit_code = 130
