"""What the extra brings: its packages, asked for by name where they are missing, and kept quiet where they talk."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec

from distill.errors import InputError

PACKAGES = ("monai", "lightning", "nibabel")
REMEDY = "pip install 'attention-distill[segment]'"


def prepare() -> None:
    """Raises InputError, naming the extra, where a package that U-Nets need is not installed."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"U-Nets need {', '.join(missing)}: {REMEDY}")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*ground truth class.*",
    ):
        warnings.filterwarnings("ignore", message=text)
    warnings.filterwarnings("ignore", module="(lightning|monai).*")
