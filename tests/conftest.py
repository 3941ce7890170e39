"""What the tests of several folders need."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where an outbox may be, in a folder of the test's own."""
    return tmp_path / "unit.outbox"
