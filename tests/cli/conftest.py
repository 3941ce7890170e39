"""The one demo that is played to its end, while the other tests of the command run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import COMMAND, ENVIRONMENT


@pytest.fixture(scope="package")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file into which the demo is drawn."""
    return tmp_path_factory.mktemp("demo") / "demo.html"


@pytest.fixture(scope="package", autouse=True)
def whole_demo(demo_page: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start the demo with the first test here, so that its 20 s pass while the others run."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--html", str(demo_page)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        yield process
        process.kill()
