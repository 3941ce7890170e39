"""tinyproxy and squid between the engine and the real aggregator."""

import contextlib
from typing import Any

import pytest
import trio

from tests.helpers.command import running
from tests.helpers.ports import free_port
from tests.helpers.unit import Unit
from tests.net.test_tls import serving
from trio_runner import DialError, EngineDispatcher, Timing

from . import _servers
from ._aggregator import RealAggregator, eventually
from ._servers import Proxy
from ._unit import CONNECT_S, open_api, running_unit

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


def open_proxy(kind: str, *allowed: int) -> contextlib.AbstractContextManager[Proxy]:
    """Run a proxy of this kind that lets connections through to these ports."""
    opener: Any = getattr(_servers, kind)
    it: contextlib.AbstractContextManager[Proxy] = opener(list(allowed))
    return it


async def failure(proxy: str, port: int, host: str = "127.0.0.1") -> str:
    """Dial through the proxy, expect it to fail, and return the error's text."""
    dispatcher = EngineDispatcher(host, port, handlers=Unit(), proxy=proxy)
    with trio.fail_after(CONNECT_S), pytest.raises(DialError) as caught:
        await dispatcher.dial(Unit().create_register_engine_msg(), Timing())
    return str(caught.value)


async def test_a_unit_is_connected_through_the_proxy_and_its_restart(
    aggregator: RealAggregator, company_proxy: str
) -> None:
    """It uses the login of the URL. While the proxy is away, the error names it."""
    with open_proxy(company_proxy, aggregator.port) as proxy:
        name = f"Unit behind {company_proxy}"
        async with running_unit(aggregator, name, proxy=proxy.url()) as unit:
            await trio.to_thread.run_sync(proxy.server.stop)

            async def told() -> str:
                await trio.lowlevel.checkpoint()
                return str(unit.runner.statistics().last_failure)

            here = f"Nothing answers at the proxy http://127.0.0.1:{proxy.server.port}"
            await eventually(told, lambda text: text.startswith(here), within_s=CONNECT_S)
            await trio.to_thread.run_sync(proxy.server.start)

            async def links() -> int:
                await trio.lowlevel.checkpoint()
                return unit.runner.statistics().links

            await eventually(links, lambda number: number == 2, within_s=CONNECT_S)
            await eventually(unit.api.state, lambda state: state == "ready", within_s=CONNECT_S)


async def test_the_command_reads_the_proxy_from_the_environment(
    aggregator: RealAggregator, company_proxy: str
) -> None:
    """The log names the proxy, without its login."""
    name = f"Unit by {company_proxy} of the environment"
    arguments = ("simulated", "--name", name, "-ap", str(aggregator.port))
    with open_proxy(company_proxy, aggregator.port) as proxy:
        environment = {"http_proxy": proxy.url(), "no_proxy": "other.example"}
        async with (
            open_api(aggregator, name) as api,
            running(*arguments, environment=environment) as command,
        ):
            await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
            command.process.terminate()
    assert (
        f"Registering for engine id at http://127.0.0.1:{aggregator.port} through the proxy"
        f" http://127.0.0.1:{proxy.server.port}\n"
    ) in command.err
    assert "sesame" not in command.err + command.out


async def test_tls_goes_through_the_proxy(company_proxy: str, tmp_path: Any) -> None:
    """The certificate is the aggregator's own, so the proxy cannot read what is said."""
    import trustme

    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with serving(authority.issue_cert("127.0.0.1")) as (aggregator, port):
        with open_proxy(company_proxy, port) as proxy:
            dispatcher = EngineDispatcher(
                port=port, handlers=Unit(), secure=True, ca_file=ca_file, proxy=proxy.url()
            )
            async with trio.open_nursery() as nursery:
                dial: Any = dispatcher.dial
                session = await nursery.start(dial, Unit().create_register_engine_msg(), Timing())
                await aggregator.wait_until(lambda: list(aggregator.engines) == [session.engine_id])
                await session.aclose()


async def test_each_refusal_by_the_proxy_says_what_to_do(company_proxy: str) -> None:
    """No login, a wrong one, a forbidden port, nobody listening, and a name that does not exist."""
    nobody = free_port()
    with open_proxy(company_proxy, nobody) as proxy:
        here = f"The proxy http://127.0.0.1:{proxy.server.port}"
        text = await failure(proxy.url(login=""), nobody)
        assert text.startswith(
            f"{here} wants a login (HTTP status 407). Give it in the proxy's URL"
        )
        text = await failure(proxy.url(login="ali:wrong"), nobody)
        assert text.startswith(f"{here} refused the login of user ali (HTTP status 40")
        text = await failure(proxy.url(), 25)
        assert text.startswith(
            f"{here} does not allow a connection to 127.0.0.1:25 (HTTP status 403)"
        )
        text = await failure(proxy.url(), nobody)
        assert text.startswith(f"{here} could not connect to 127.0.0.1:{nobody} (HTTP status 50")
        text = await failure(proxy.url(), nobody, "no.such.host.invalid")
        assert text.startswith(f"{here} could not connect to no.such.host.invalid:{nobody} (HTTP")
        assert text.endswith("and does the proxy know it by that name?")
