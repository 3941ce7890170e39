"""Tests that need something which is not available everywhere: skip them, or fail if required."""

import os
from typing import NoReturn

import pytest

REQUIRE_VARIABLE = "TRIO_RUNNER_REQUIRE_INTEROP"


def go_without(reason: str) -> NoReturn:
    """Skip the test, or fail it if the environment says that interop is required."""
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
