"""The status over HTTP: what it answers, and what a peer cannot do."""

import json
import logging

import pytest
import trio
import trio.testing
from attrs import define

from tests.status.site import get, running_units, serving
from trio_runner import EngineRunner
from trio_runner.simulation import Aggregator
from trio_runner.status import serve
from trio_runner.status._http import Answer, converse
from trio_runner.status._server import CONNECTIONS_MAX

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"


@define
class Failed:
    """A unit that could not start."""

    name: str = "<script>alert(1)</script>"
    runner: EngineRunner | None = None
    failed: str | None = "its <b>hardware</b> cannot be used"


@pytest.mark.parametrize("path", ["", "health", "metrics", "status.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed_over_http(path: str, method: str) -> None:
    """Everything but GET and HEAD is refused, with the methods that are allowed."""
    async with serving() as url:
        answer = await get(url, path, method)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["", "health", "metrics", "status.json"])
async def test_head_is_answered_like_get_without_a_body(path: str) -> None:
    """It has the same status and type, but only the headers."""
    async with serving() as url:
        body, head = await get(url, path), await get(url, path, "HEAD")
    assert head.status_code == body.status_code == 200
    assert head.headers["content-type"] == body.headers["content-type"]
    assert head.content == b""


async def test_an_unknown_path_gets_a_list_of_the_paths() -> None:
    """Somebody who guesses a path gets the four that exist."""
    async with serving() as url:
        answer = await get(url, "stats?x=1")
    assert answer.status_code == 404
    assert "/status.json" in answer.text


async def test_health_is_ok_while_data_flows() -> None:
    """It is one line, for people and for load balancers."""
    async with running_units(["A", "B"], Aggregator()) as runners, serving(*runners) as url:
        await steady(runners)
        answer = await get(url, "health")
    assert (answer.status_code, answer.text) == (200, "OK\n")


async def test_health_names_each_unit_that_is_not_well() -> None:
    """With an alarm at once, an outage gives 503 with unit and reason, and 200 when it is over."""
    aggregator = Aggregator()
    async with (
        running_units(["A"], aggregator) as runners,
        serving(*runners, alarm_after_s=0.001) as url,
    ):
        await steady(runners)
        async with aggregator.outage():
            await until_state(runners[0], "Disconnected")
            answer = await get(url, "health")
            assert answer.status_code == 503
            assert answer.text.startswith("CRITICAL\nA: no link to the aggregator for ")
        await until_state(runners[0], "Reconnected")
        assert (await get(url, "health")).status_code == 200


async def test_a_failed_unit_fails_the_health_of_all() -> None:
    """The others are shown as they are."""
    async with (
        running_units(["A"], Aggregator()) as runners,
        serving(*runners, Failed()) as url,
    ):
        await steady(runners)
        health = await get(url, "health")
        units = (await get(url, "status.json")).json()["units"]
    assert health.status_code == 503
    assert [unit["level"] for unit in units] == ["ok", "critical"]


async def test_foreign_texts_are_escaped_in_the_page() -> None:
    """A unit's name and an error may contain anything, and none of it becomes markup."""
    async with serving(Failed()) as url:
        answer = await get(url)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "its &lt;b&gt;hardware&lt;/b&gt;" in answer.text
    assert "<script>alert" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_units_with_the_same_name_are_told_apart() -> None:
    """Two series with the same labels would spoil the whole scrape."""
    async with serving(Failed("A"), Failed("A"), Failed("A\n2" * 99)) as url:
        text = (await get(url, "metrics")).text
        names = [unit["unit"] for unit in (await get(url, "status.json")).json()["units"]]
    assert names[:2] == ["A", "A (2)"]
    assert names[2].startswith("A\\n2A\\n2")
    assert len(names[2]) == 100
    assert 'trio_runner_failed{unit="A (2)"} 1.0' in text


class Broken:
    """A unit of an embedder that has a bug."""

    name = "broken"
    runner = None

    @property
    def failed(self) -> str | None:
        raise RuntimeError("a bug")


async def test_a_bug_in_the_status_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Each request gets 500, and the bug is logged once with its traceback."""
    async with serving(Broken()) as url:
        answers = [await get(url, "health") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500] * 3
    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.exc_info is not None
    assert "a bug" in error.getMessage()


# What a peer cannot do


async def test_a_reader_that_stalls_does_not_hold_up_the_end() -> None:
    """It asks and reads nothing; a cancelled server is gone at once nevertheless."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, theirs, echo)
            await ours.send_all(REQUEST)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught, "it was sending"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", REQUEST])
async def test_a_stalled_peer_is_disconnected(
    sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """It has 20 s before, within and after its request."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, theirs, echo)
        if sent:
            await ours.send_all(sent)
    assert trio.current_time() == 20


async def test_the_number_of_connections_is_bounded_and_closed_ones_make_room() -> None:
    """If a peer opens more than 32, the next one is closed; a closed one makes room."""
    async with serving() as url:
        idle = [await connected(url) for _ in range(CONNECTIONS_MAX)]
        await trio.testing.wait_all_tasks_blocked()
        async with await connected(url) as one_more:
            assert await answer_of(one_more) == b""
        await idle.pop().aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await connected(url) as again:
            assert (await answer_of(again)).startswith(b"HTTP/1.1 200")
        for stream in idle:
            await stream.aclose()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000, b"431"),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n" + b"a" * 50_000, b"405"),
    ],
)
async def test_bytes_that_are_no_request_are_refused(sent: bytes, status: bytes) -> None:
    """TLS, no host, endless headers, odd bytes, a body: each gets an answer, and then the end."""
    async with serving() as url, await connected(url) as stream:
        assert (await answer_of(stream, sent)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("host", "level"),
    [("127.0.0.1", logging.INFO), ("0.0.0.0", logging.WARNING)],  # noqa: S104
)
async def test_the_log_says_to_whom_the_status_is_open(
    host: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A loopback address is for this computer; of any other the log says that it is open to all."""
    with caplog.at_level(logging.INFO, "trio_runner"):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(serve, [], host)
            nursery.cancel_scope.cancel()
    (record,) = caplog.records
    assert record.levelno == level
    assert url in record.getMessage()
    assert ("all who can reach" in record.getMessage()) == (level == logging.WARNING)


async def test_an_address_that_is_in_use_raises_an_error() -> None:
    """It is an OSError, which the caller can judge."""
    async with serving() as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            await serve([], port=port)


async def test_the_status_is_available_as_json() -> None:
    """It has everything that the page shows."""
    async with running_units(["A"], Aggregator()) as runners, serving(*runners) as url:
        await steady(runners)
        (unit,) = json.loads((await get(url, "status.json")).content)["units"]
    assert unit["statistics"]["outbox"]["bytes_max"] == 64 * 2**20
    assert unit["statistics"]["state"] == "Connected"
    assert len(unit["history"]["waiting"]) == 1


async def steady(runners: list[EngineRunner]) -> None:
    for runner in runners:
        await until_state(runner, "Connected")


async def until_state(runner: EngineRunner, state: str) -> None:
    with trio.fail_after(30), runner.state_changes() as changes:
        while runner.state != state:
            await anext(changes)


async def connected(url: str) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))


async def answer_of(stream: trio.SocketStream, sent: bytes = REQUEST) -> bytes:
    """Send, and return everything that comes, or nothing if the peer has closed."""
    got = b""
    try:
        await stream.send_all(sent)
        async for chunk in stream:
            got += chunk
    except trio.BrokenResourceError:
        pass
    return got


def echo(path: str) -> Answer:
    return Answer(200, path)
