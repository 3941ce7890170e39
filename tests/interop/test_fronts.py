"""nginx, haproxy and Caddy with TLS in front of the real aggregator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_runner import (
    DialError,
    EngineDispatcher,
    NotAnAggregator,
    Timing,
)
from trio_runner.simulation import SimulatedEngine

from ._aggregator import RealAggregator, eventually
from ._servers import PREFIX, Front, front
from ._unit import CONNECT_S, RunningUnit, running_unit

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


@pytest.fixture
def before(
    reverse_proxy: str,
    aggregator: RealAggregator,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Front]:
    """Run a reverse proxy in front of the aggregator; its output is shown if the test fails."""
    with front(reverse_proxy, aggregator.port, tmp_path) as it:
        yield it
        request.node.add_report_section("teardown", reverse_proxy, it.server.log_text())


async def failure(before: Front, port: int, **options: Any) -> DialError:
    """Dial a port of the reverse proxy, expect it to fail, and return the error."""
    engine = SimulatedEngine(name="Unit that fails", seed=1)
    options = {"secure": True, "ca_file": before.ca_file, **options}
    dispatcher = EngineDispatcher("127.0.0.1", port, handlers=engine, **options)
    with trio.fail_after(CONNECT_S), pytest.raises(DialError) as caught:
        await dispatcher.dial(engine.create_register_engine_msg(), Timing())
    return caught.value


async def assert_values_flow(unit: RunningUnit) -> None:
    """Wait until the aggregator has a value that was taken after now."""
    now = unit.engine.clock()

    async def newest() -> float:
        entries = (await unit.api.of_unit("plot_log"))["entries"].values()
        return max((v["tick_time"] for e in entries for v in e["values"]), default=0)

    await eventually(newest, lambda tick_s: tick_s > now, within_s=CONNECT_S)


async def test_a_unit_is_connected_through_a_reload_and_a_restart(
    aggregator: RealAggregator, before: Front
) -> None:
    """Values flow in a run, over the old link or over a new one."""
    options: Any = {"secure": True, "ca_file": before.ca_file}
    async with running_unit(aggregator, "Unit behind TLS", port=before.tls, **options) as unit:
        await unit.api.press("Start")
        await assert_values_flow(unit)
        await trio.to_thread.run_sync(before.server.reload)
        await assert_values_flow(unit)
        links = unit.runner.statistics().links
        await trio.to_thread.run_sync(before.server.restart)
        await eventually(_links(unit), lambda now: now > links, within_s=CONNECT_S)
        await assert_values_flow(unit)
        await unit.api.press("Stop")
        assert unit.runner.statistics().links <= 3


async def test_an_aggregator_away_behind_the_proxy_is_waited_for(
    aggregator: RealAggregator, before: Front
) -> None:
    """The proxy answers for it, which is told as such; the unit is back when the aggregator is."""
    options: Any = {"secure": True, "ca_file": before.ca_file}
    async with running_unit(aggregator, "Unit in front", port=before.tls, **options) as unit:
        await trio.to_thread.run_sync(aggregator.kill)
        await eventually(_told(unit), lambda text: "A proxy answers" in text, within_s=CONNECT_S)
        told = unit.runner.statistics().last_failure or ""
        assert f"the aggregator at https://127.0.0.1:{before.tls} (HTTP status 50" in told
        assert told.endswith("Is the aggregator running behind the proxy?")
        await trio.to_thread.run_sync(aggregator.start)
        await eventually(_links(unit), lambda number: number == 2, within_s=CONNECT_S)
        await eventually(unit.api.state, lambda state: state == "ready", within_s=CONNECT_S)


async def test_an_upgrade_that_the_proxy_does_not_pass_on_is_told(before: Front) -> None:
    """The registration has come through."""
    error = await failure(before, before.no_upgrade)
    assert type(error) is NotAnAggregator
    assert (
        f"https://127.0.0.1:{before.no_upgrade} accepted the registration but not the websocket"
        in str(error)
    )
    assert "let it pass on the upgrade" in str(error)


async def test_an_aggregator_below_a_path_is_reached(
    aggregator: RealAggregator, before: Front
) -> None:
    """It is reached with the path; without the path, the error says to check it."""
    error = await failure(before, before.below_path, path="/elsewhere")
    assert "Check host, port and path." in str(error)
    options: Any = {"secure": True, "ca_file": before.ca_file, "path": PREFIX}
    port = before.below_path
    async with running_unit(aggregator, "Unit below a path", port=port, **options) as unit:
        assert unit.runner.statistics().links == 1


async def test_the_client_certificate_is_shown(aggregator: RealAggregator, before: Front) -> None:
    """It is shown where it is wanted; without it, the error says what to give."""
    error = await failure(before, before.mutual)
    assert "client certificate" in str(error)
    assert "--client-cert FILE" in str(error)
    options: Any = {
        "secure": True,
        "ca_file": before.ca_file,
        "client_cert": before.client_cert,
        "host": "localhost",  # Caddy checks that this is the name of the TLS handshake
        "port": before.mutual,
    }
    async with running_unit(aggregator, "Unit with proof", **options) as unit:
        assert unit.runner.statistics().links == 1


async def test_a_redirect_to_tls_says_to_use_secure(before: Front) -> None:
    """The error says where to."""
    error = await failure(before, before.to_tls, secure=False, ca_file=None)
    assert f"to https://127.0.0.1:{before.tls}/engine-rest (HTTP status 30" in str(error)
    assert "(--secure) to that host, port and path." in str(error)


async def test_plain_http_to_the_tls_port_says_to_use_secure(before: Front) -> None:
    """Each server has its own words for it, or none."""
    error = await failure(before, before.tls, secure=False, ca_file=None)
    assert "secure connection" in str(error)
    assert "(--secure)" in str(error)


async def test_an_unknown_authority_is_told(before: Front) -> None:
    """The error has both ways to make it known."""
    error = await failure(before, before.tls, ca_file=None)
    assert f"The certificate of https://127.0.0.1:{before.tls} is not trusted" in str(error)
    assert "add that authority to the system's store or give its CA file" in str(error)


def _links(unit: RunningUnit) -> Any:
    async def ask() -> int:
        await trio.lowlevel.checkpoint()
        return unit.runner.statistics().links

    return ask


def _told(unit: RunningUnit) -> Any:
    async def ask() -> str:
        await trio.lowlevel.checkpoint()
        return str(unit.runner.statistics().last_failure)

    return ask
