"""What every test stands on: frameworks that write nothing outside a temporary folder and use no network.

The environment is set when this file is imported, before any test module can import ultralytics, which reads it once.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1, ...; absent in the process that starts them


def session_folder() -> Path:
    """One temporary folder for the whole run: made by the first process, found by the workers it starts."""
    if WORKER and "DISTILL_TESTS_FOLDER" in os.environ:
        return Path(os.environ["DISTILL_TESTS_FOLDER"])
    folder = Path(tempfile.mkdtemp(prefix="distill-tests-"))
    os.environ["DISTILL_TESTS_FOLDER"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


SESSION = session_folder()
os.environ.update(
    YOLO_CONFIG_DIR=str(SESSION / (WORKER or "main")),  # its settings file is rewritten: one for each worker
    YOLO_OFFLINE="true",
    YOLO_AUTOINSTALL="false",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",  # the workers share the cores; and sums do not depend on the number of threads
    DISTILL_CACHE=str(SESSION / "cache"),  # shared: what one worker has made, the others find
)
for folder in ("YOLO_CONFIG_DIR", "DISTILL_CACHE"):
    Path(os.environ[folder]).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Hold torch to one thread if a test module has imported it; OMP_NUM_THREADS sees to one that comes later."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_cli("layers", path, cwd=tmp_path)` runs `python -m distill layers PATH` there and returns what came out.

    A command that fails is returned like any other (`returncode`, `stdout`, `stderr`); one that outlasts `timeout`
    seconds raises `subprocess.TimeoutExpired`. `env` adds to the environment.
    """

    def run(
        *args: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return subprocess.run(
            [sys.executable, "-m", "distill", *map(str, args)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run
