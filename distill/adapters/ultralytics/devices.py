"""The device that a run was asked to use."""

from __future__ import annotations

import torch
from ultralytics.utils.torch_utils import parse_device, select_device

from distill.adapters.ultralytics.environment import quiet
from distill.errors import InputError
from distill.text import one_line


def checked_device(device: str) -> str:
    """The device as it was given. Raises InputError when this machine does not have it."""
    try:
        with quiet():
            torch.empty(0, device=select_device(parse_device(device), verbose=False))  # it lets unknown words pass
    except Exception as error:  # of Ultralytics or torch, in several lines
        raise InputError(f"--device {device}: {one_line(error).partition(' torch.cuda')[0]}") from error
    return device
