"""A folder for a browser, if there is one."""

from pathlib import Path

import pytest

from tests.helpers.required import go_without
from tests.interop._browser import CHROMIUM, HOW_TO_GET_IT


@pytest.fixture
def browser_folder(tmp_path: Path) -> Path:
    """Return a folder for a browser's profile, or skip the test without a browser."""
    if not CHROMIUM.exists():
        go_without(HOW_TO_GET_IT)
    return tmp_path
