"""The real aggregator, shared by the tests, and one unit at it for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.install import Unavailable, aggregator_command
from tests.helpers.required import go_without

from ._aggregator import RealAggregator
from ._browser import CHROMIUM, HOW_TO_GET_IT
from ._servers import KINDS, NotInstalled, program


@pytest.fixture(scope="session")
def shared_aggregator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAggregator]:
    """Run one aggregator for all tests, since starting it takes seconds."""
    try:
        command = aggregator_command()
    except Unavailable as error:
        go_without(str(error))
    with RealAggregator(command, tmp_path_factory.mktemp("aggregator")) as aggregator:
        yield aggregator


@pytest.fixture
def aggregator(
    shared_aggregator: RealAggregator, request: pytest.FixtureRequest
) -> Iterator[RealAggregator]:
    """Yield the running aggregator; what it logs during the test is shown if the test fails."""
    shared_aggregator.ensure_started()  # a test that failed in mid-outage may have left it stopped
    seen = len(shared_aggregator.log_text())
    yield shared_aggregator
    text = shared_aggregator.log_text()[seen:]
    request.node.add_report_section("teardown", "aggregator", text)


@pytest.fixture
def browser_folder(tmp_path: Path) -> Path:
    """Return a folder for a browser's profile, or skip the test without a browser."""
    if not CHROMIUM.exists():
        go_without(HOW_TO_GET_IT)
    return tmp_path


@pytest.fixture(params=KINDS)
def reverse_proxy(request: pytest.FixtureRequest) -> str:
    """Return each kind of reverse proxy that is installed."""
    return _installed(request.param)


@pytest.fixture(params=["tinyproxy", "squid"])
def company_proxy(request: pytest.FixtureRequest) -> str:
    """Return each kind of company proxy that is installed."""
    return _installed(request.param)


def _installed(name: str) -> str:
    try:
        program(name)
    except NotInstalled as error:
        go_without(str(error))
    return name
