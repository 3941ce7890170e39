"""The status of real processes."""

import json
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from textwrap import dedent

import httpx2
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.command import Command, ran, running
from tests.helpers.ports import free_port
from tests.status.site import get
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

ALARM_S = 2
SKID = {"unit": "Filtration Skid"}


@asynccontextmanager
async def serving(aggregator: Aggregator) -> AsyncGenerator[int, None]:
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(aggregator.run)
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def simulated(port: int, *more: str) -> AsyncGenerator[tuple[Command, str], None]:
    """Run the simulated engine with its status; yield the URL of the status."""
    at = free_port()
    arguments = ("-ap", str(port), "--status", str(at), "--alarm-after", f"{ALARM_S}s", *more)
    async with running("simulated", *arguments) as command:
        await command.until("Status at http://127.0.0.1:")
        yield command, f"http://127.0.0.1:{at}/"
        command.send(signal.SIGTERM)


async def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Scrape, and return all values by name and labels."""
    answer = await get(url, "metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


async def metric(url: str, name: str, **labels: str) -> float:
    return (await samples(url))[f"trio_runner_{name}", frozenset({**SKID, **labels}.items())]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask an outside process again and again until the condition holds."""
    with trio.fail_after(30):
        while not await condition():  # noqa: ASYNC110 - of another process
            await trio.sleep(0.1)


async def health(url: str) -> int:
    return (await get(url, "health")).status_code


async def test_the_scrape_tells_what_the_run_did() -> None:
    """Its figures are the aggregator's: everything that it took, over one link, after one dial."""
    aggregator = Aggregator()
    async with serving(aggregator) as port, simulated(port) as (command, url):
        await command.until("Changing state: Started -> Connected")
        engine_id = aggregator.engine().engine_id
        await aggregator.call(engine_id, am.ExecuteControlCommandMsg(name="Start"))
        record = aggregator.engine()
        await aggregator.wait_until(lambda: len(record.messages(em.TagsUpdatedMsg)) > 10)
        await aggregator.call(engine_id, am.ExecuteControlCommandMsg(name="Stop"))
        await aggregator.wait_until(lambda: record.messages(em.RunStoppedMsg))

        await until(partial(has_measured_the_loop, url))
        before = len(of_the_queue(aggregator))
        scraped = await samples(url)
        after = len(of_the_queue(aggregator))

    def value(name: str, **labels: str) -> float:
        return scraped[f"trio_runner_{name}", frozenset({**SKID, **labels}.items())]

    # What is under way at the scrape may be counted on one side only, which is a handful.
    assert before - 3 <= value("delivered_total") <= after
    assert value("events_taken_total") == len(events(aggregator))
    taken = value("samples_taken_total") + value("events_taken_total")
    assert taken == value("delivered_total") + value("queue_size")
    assert value("answer_seconds_count") <= value("samples_taken_total")
    assert 0 < value("answer_seconds_sum") < 10
    assert value("answer_seconds_bucket", le="+Inf") == value("answer_seconds_count")
    assert value("sample_lag_seconds_count") >= value("samples_taken_total")
    assert value("dials_total", outcome="Linked") == value("links_total") == 1
    assert value("links_lost_total") == value("thinned_total") == value("set_aside_total") == 0
    assert value("sent_bytes_total") > 1000
    assert value("queue_capacity_bytes") == 64 * 2**20
    assert value("state", trio_runner_state="Connected") == 1
    assert sum(v for (name, _), v in scraped.items() if name == "trio_runner_state") == 1
    assert value("healthy") == 1
    assert scraped["process_cpu_seconds_total", frozenset()] > 0


async def has_measured_the_loop(url: str) -> bool:
    return (await samples(url))["trio_runner_loop_lag_seconds_count", frozenset()] >= 1


def of_the_queue(aggregator: Aggregator) -> list[em.EngineMessage]:
    kinds = em.TagsUpdatedMsg, em.RunStartedMsg, em.RunStoppedMsg, em.WebPushNotificationMsg
    received = aggregator.engine().received
    return [r.message for r in received if isinstance(r.message, (*kinds, em.ErrorLogMsg))]


def events(aggregator: Aggregator) -> list[em.EngineMessage]:
    return [m for m in of_the_queue(aggregator) if not isinstance(m, em.TagsUpdatedMsg)]


async def test_the_health_fails_only_while_an_outage_lasts_longer_than_the_alarm_time() -> None:
    """200 at first, 503 with the reason after the alarm time, and 200 when data flows again."""
    aggregator = Aggregator()
    async with serving(aggregator) as port, simulated(port) as (command, url):
        await command.until("Changing state: Started -> Connected")
        assert (await get(url, "health")).text == "OK\n"
        began = trio.current_time()
        async with aggregator.outage(kill=True):
            await command.until("Failed -> Disconnected")
            answer = await get(url, "health")
            if trio.current_time() - began < ALARM_S:  # otherwise this machine was very slow
                assert answer.status_code == 200
                assert answer.text.startswith("WARNING\nFiltration Skid: no link")
            await until(lambda: _is(health(url), 503))
            assert trio.current_time() - began >= ALARM_S
            answer = await get(url, "health")
            assert answer.text.startswith("CRITICAL\nFiltration Skid: no link to the aggregator")
            assert "Is the aggregator running there?" in answer.text
            assert await metric(url, "healthy") == 0
            assert await metric(url, "away_seconds") >= ALARM_S
            assert await metric(url, "dials_total", outcome="AggregatorUnreachable") >= 1
        await command.until("-> Reconnected")
        assert await health(url) == 200
        assert await metric(url, "links_lost_total") == 1


async def _is(answer: Awaitable[int], expected: int) -> bool:
    return await answer == expected


async def test_the_status_command_tells_the_same_at_a_terminal(tmp_path: Path) -> None:
    """0 in steady state, 1 in an outage, 2 in a long one, and 3 where nothing answers."""
    aggregator, outbox = Aggregator(), str(tmp_path / "skid.outbox")
    async with (
        serving(aggregator) as port,
        simulated(port, "--outbox", outbox) as (command, url),
    ):
        await command.until("Changing state: Started -> Connected")
        told = await ran("status", url)
        assert (told.code, told.err) == (0, "")
        assert told.out.startswith("OK: 1 unit\n  ok        Filtration Skid: Connected for ")
        as_json = await ran("status", "--json", url.removeprefix("http://").rstrip("/"))
        assert as_json.code == 0
        assert json.loads(as_json.out)["units"][0]["statistics"]["state"] == "Connected"
        of_file = await ran("status", outbox)
        assert of_file.code == 0, "what is under way has not waited"
        assert "Filtration Skid" in of_file.out
        async with aggregator.outage(kill=True):
            await until(lambda: _is(health(url), 503))
            told = await ran("status", url)
            assert told.code == 2
            assert told.out.startswith("CRITICAL: Filtration Skid: no link to the aggregator for ")
    told = await ran("status", url)
    assert told.code == 3
    assert told.out.startswith("UNKNOWN: nothing answers at http://127.0.0.1:")


async def test_a_port_in_use_does_not_stop_the_engine() -> None:
    """An error is logged, and the engine runs."""
    aggregator = Aggregator()
    async with serving(aggregator) as port:
        arguments = ("-ap", str(port), "--status", str(port))
        async with running("simulated", *arguments) as command:
            await command.until("Changing state: Started -> Connected")
            command.send(signal.SIGTERM)
    assert command.code == 0
    assert f"Cannot serve the status at 127.0.0.1:{port} for now: " in command.err
    assert "ERROR" in command.err


async def test_the_end_waits_for_no_reader() -> None:
    """Neither an open page nor a peer that says nothing holds up the command."""
    aggregator = Aggregator()
    async with serving(aggregator) as port:
        async with simulated(port) as (command, url):
            await command.until("Changing state: Started -> Connected")
            silent = await trio.open_tcp_stream("127.0.0.1", int(url[:-1].rpartition(":")[2]))
            asked = trio.current_time()
        assert trio.current_time() - asked < 5
        await silent.aclose()
    assert command.code == 0
    assert "Traceback" not in command.err


async def test_without_its_libraries_one_line_says_what_to_install(tmp_path: Path) -> None:
    """So it is after an installation without the extra."""
    (tmp_path / "sitecustomize.py").write_text(
        dedent("""\
            import sys
            sys.modules["prometheus_client"] = None
        """)
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"}
    command = await ran("simulated", "--status", "9801", environment=environment)
    assert command.code == 2
    assert command.err == (
        "trio-runner simulated: error: argument --status: it needs more packages:"
        " pip install '.[status]' in the folder of this project"
        " (see trio-runner simulated --help)\n"
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:{}/", "{}"])
async def test_a_server_that_gives_no_status_is_unknown(address: str) -> None:
    """That may be the aggregator itself: the exit code is 3, and there is no traceback."""
    async with serving(Aggregator()) as port:
        told = await ran("status", address.format(port))
    assert told.code == 3
    assert (
        "what answers there is not a status of trio-runner: it answers with HTTP status" in told.out
    )
    assert told.err == ""


async def test_a_url_of_another_kind_is_named() -> None:
    """The error says what to give instead."""
    told = await ran("status", "ftp://a")
    assert (told.code, told.out) == (3, "UNKNOWN: ftp://a is not an http or https URL\n")


async def test_a_scrape_is_answered_while_others_are_connected() -> None:
    """Ten scrapes at once are each whole."""
    aggregator = Aggregator()
    async with serving(aggregator) as port, simulated(port) as (command, url):
        await command.until("Changing state: Started -> Connected")
        answers: list[httpx2.Response] = []

        async def scrape() -> None:
            answers.append(await get(url, "metrics"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(scrape)
    assert [answer.status_code for answer in answers] == [200] * 10
