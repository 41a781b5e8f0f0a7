"""The tests of this folder need the packages of the extra `segment`; where one is missing, all are skipped."""

from importlib.util import find_spec

import pytest

NEEDED = ("monai", "lightning", "nibabel")
MISSING = [package for package in NEEDED if find_spec(package) is None]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule():
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}: pip install 'attention-distill[segment]'", allow_module_level=True)
    from distill.loading import segment_adapter

    segment_adapter()  # the packages are quiet from here on


@pytest.fixture
def refused():
    """`refused(call, part, ...)`: InputError of a single line that holds each part; returns the line."""
    from distill.errors import InputError

    def check(call, *parts):
        with pytest.raises(InputError) as error:
            call()
        message = str(error.value)
        assert message and "\n" not in message and len(message) < 300, message
        for part in parts:
            assert part in message, f"{part!r} is not in {message!r}"
        return message

    return check
