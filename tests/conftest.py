"""What tests of several folders need."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path for an outbox, in a folder that only this test uses."""
    return tmp_path / "unit.outbox"
