"""What a test needs that is not everywhere: without it is skipped, or fails where asked to."""

import os
from typing import NoReturn

import pytest

REQUIRE_VARIABLE = "TRIO_RUNNER_REQUIRE_INTEROP"


def go_without(reason: str) -> NoReturn:
    """Skip the test, but where interop is required a skip is a failure."""
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
