"""Progress is told on standard error, and only where something takes long."""

from __future__ import annotations

import pytest

from distill import progress as module
from distill.progress import progress


def test_what_is_soon_done_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([1, 2, 3], "images", 3)) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 11))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))


@pytest.mark.usefixtures("slow")
def test_what_takes_long_is_told_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    list(progress("abc", "images", 3))
    assert capsys.readouterr().err == "images 0/3\nimages 1/3\nimages 2/3\nimages 3/3\n"


@pytest.mark.usefixtures("slow")
def test_a_terminals_line_is_ended_even_when_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    items = progress("abc", "images", 3)
    next(items)
    items.close()
    assert capsys.readouterr().err == "\rimages 0/3\rimages 0/3\n"
