"""A folder for a browser, where there is one."""

from pathlib import Path

import pytest

from tests.helpers.required import go_without
from tests.interop._browser import CHROMIUM, HOW_TO_GET_IT


@pytest.fixture
def browser_folder(tmp_path: Path) -> Path:
    """Give a folder for a browser's profile, where there is a browser."""
    if not CHROMIUM.exists():
        go_without(HOW_TO_GET_IT)
    return tmp_path
