"""What the log and the statistics say about an outage, in virtual time."""

import logging
import re

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock as Clock

from tests.helpers.unit import wall_clock, world
from trio_runner import MemoryOutbox
from trio_runner._away import duration
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator, Network

SALT = "salt-and-pepper"

GOES_ON = "The runner goes on trying and will say more within 10 min."

GONE = (
    "Nothing answers at http://aggregator.example:9800: connection refused."
    " Is the aggregator running there?"
)


NONE_WAIT = "messages waiting: 0, 0 kB. The connection to the aggregator broke off."


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log from INFO on, with changes of state shown without their prefix."""
    return [
        f"{record.levelname} {record.getMessage().removeprefix('Changing state: ')}"
        for record in caplog.records
        if record.levelno >= logging.INFO
    ]


async def test_an_outage_of_an_hour_takes_a_dozen_lines_of_the_log(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the loss, the reason, what to do, a summary every 10 min, and the return.

    It has nothing about each redial. Meanwhile the unit samples every 1.2 s, its data-log interval
    of 1 s and two ticks: 500 samples in 600 s. A summary is logged at the first failed dial after
    it is due.
    """
    caplog.set_level(logging.INFO)
    async with world() as w:
        await w.settled()
        caplog.clear()
        async with w.aggregator.outage():
            await trio.sleep(3600)
        await w.until("Reconnected")
        assert said(caplog) == [
            "INFO Connected -> Failed",
            "WARNING The aggregator closed the connection with code 1012.",
            "INFO Failed -> Disconnected",
            "INFO Disconnected -> Failed",
            f"WARNING {GONE} {GOES_ON}",
            *(
                f"WARNING No link to the aggregator for {waiting}. {GONE}"
                for waiting in (
                    "10 min; messages waiting: 502, 296 kB",
                    "20 min; messages waiting: 1006, 593 kB",
                    "30 min; messages waiting: 1511, 891 kB",
                    "40 min; messages waiting: 2015, 1189 kB",
                    "50 min; messages waiting: 2519, 1487 kB",
                )
            ),
            "INFO Disconnected -> Reconnecting",
            "INFO Reconnecting -> CatchingUp",
            "INFO CatchingUp -> Reconnected",
            "INFO The aggregator is back after 60 min; messages caught up: 3006, in 0 s",
        ]


async def test_a_registration_that_is_refused_is_reminded_of_once_an_hour(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting does not help, so nobody needs to hear of it every 10 min."""
    async with world(aggregator=Aggregator(secret="another")) as w:  # noqa: S106
        await trio.sleep(2.1 * 3600)
        assert w.runner.statistics().failures.keys() == {"SecretRefused"}
    told = [line for line in caplog.messages if line.startswith("No link to the aggregator for")]
    assert [line.partition(";")[0][30:] for line in told] == ["60 min", "2 h"]


async def test_what_is_left_in_memory_is_said_to_be_lost(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One sample is taken every 1.2 s from 0.1 s on, which makes 9 by 10 s."""
    async with world(up=False) as w:
        await trio.sleep(10)
        await w.runner.shutdown()
    told = "Stopped; messages not delivered: 9. They are lost: the outbox is in memory"
    assert told in caplog.messages


async def test_samples_given_up_in_an_outage_are_told_at_its_end(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """100 samples of 590 bytes exceed a bound of 50,000 bytes, so some of them are thinned."""
    caplog.set_level(logging.INFO)
    async with world(outbox=MemoryOutbox(bytes_max=50_000)) as w:
        await w.settled()
        async with w.aggregator.outage():
            await trio.sleep(120)
        await w.until("Reconnected")
        thinned = w.runner.statistics().outbox.thinned
        assert thinned
        assert said(caplog)[-1].endswith(f"; samples given up: {thinned}")


async def test_links_that_break_again_and_again_are_summed_up(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each link is lost 20 s after its return. None is healthy, so all are told as one outage.

    A link comes back after 0.6875 s (`Middle`), so one is lost every 20.6875 s: the first at 0 s,
    the 30th at 29 * 20.6875 s = 599.9 s, and the 31st at 620.6 s, when the summary is due.
    """
    caplog.set_level(logging.INFO)
    async with world() as w:
        await w.settled()
        await trio.sleep(61)  # this makes the link healthy
        caplog.clear()
        for _ in range(31):
            w.network.reset()
            await w.until("Failed")
            await w.until("Reconnected")
            await trio.sleep(20)
        assert said(caplog) == [
            "INFO Connected -> Failed",
            "WARNING The connection to the aggregator broke off.",
            "INFO Failed -> Disconnected",
            "INFO Disconnected -> Reconnecting",
            "INFO Reconnecting -> CatchingUp",
            "INFO CatchingUp -> Reconnected",
            "INFO The aggregator is back after 0.69 s; messages caught up: 1, in 0 s",
            "INFO Reconnected -> Failed",
            f"WARNING Links to the aggregator do not last: 31 were lost in 10 min; {NONE_WAIT}",
        ]
        await trio.sleep(61)
        caplog.clear()
        w.network.reset()
        await w.until("Failed")
        assert said(caplog)[:2] == [
            "INFO Reconnected -> Failed",
            "WARNING The connection to the aggregator broke off.",
        ]


async def test_an_outage_after_a_short_link_is_told_as_one(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The outage lasts 30 min. The short links before it are no news, but its end is."""
    caplog.set_level(logging.INFO)
    async with world() as w:
        await w.settled()
        for outage_s in (5, 1800):
            async with w.aggregator.outage():
                await trio.sleep(outage_s)
            await w.until("Reconnected")
            await trio.sleep(20)
        lines = said(caplog)
        assert sum("No link to the aggregator for 20 min" in line for line in lines) == 1
        assert lines[-2] == "INFO CatchingUp -> Reconnected"
        assert "back after 30 min; messages caught up: 15" in lines[-1]


async def test_what_is_caught_up_over_several_links_is_told_together(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first link breaks halfway; the count covers all that waited since its introduction."""
    caplog.set_level(logging.INFO)
    async with world() as w:
        await w.settled()
        async with w.aggregator.outage():
            await trio.sleep(600)
        w.network.latency_s = 0.1
        await w.until("CatchingUp")
        await trio.sleep(1)
        w.network.reset()
        await w.until("Reconnected")
        told = re.search("messages caught up: ([0-9]+), in", said(caplog)[-1])
        assert told is not None
        assert int(told[1]) >= 500  # One every 1.2 s; 7 of them went over the first link.


async def test_statistics_tell_since_when_the_aggregator_has_been_away(
    autojump_clock: Clock,
) -> None:
    """The aggregator counts as away from the loss until everything is caught up.

    Dials are refused 0.6875 s after the loss and then every 1.375 s (`Middle`). The last one before
    30 s comes at 0.6875 + 21 * 1.375 = 29.5625 s, which makes 22 in all.
    """
    async with world(run=False) as w:
        before = w.runner.statistics()
        assert (before.unit, before.state_for_s, before.away_for_s) == ("Unit", 0, None)
        await trio.sleep(100)  # the runner does not count this time
        await w.nursery.start(w.runner.run)
        await w.settled()
        assert w.runner.statistics().away_for_s is None
        async with w.aggregator.outage():
            await trio.sleep(30)
            seen = w.runner.statistics()
            assert (seen.away_for_s, seen.state_for_s) == (30, 30 - 29.5625)
            assert seen.failures == {"LinkLost": 1, "AggregatorUnreachable": 22}
            assert (seen.dials, seen.links) == (23, 1)
            await trio.to_thread.run_sync(w.runner.statistics)
        await w.until("Reconnected")
        assert w.runner.statistics().away_for_s is None
        await w.runner.shutdown()
        await trio.sleep(10)
        assert w.runner.statistics().away_for_s == 10  # the runner has ended


async def test_answer_times_are_those_of_the_path(autojump_clock: Clock) -> None:
    """At 80 ms there and back, the 10 samples of 3 s take 0.08 s each: the class up to 0.1 s."""
    async with world() as w:
        w.network.latency_s = 0.04
        await trio.sleep(1)
        before = w.runner.statistics()
        await trio.sleep(3)
        after = w.runner.statistics()
        answers = after.answer_s.counts
        new = [a - b for a, b in zip(answers, before.answer_s.counts, strict=True)]
        assert new == [10 * (bound == 0.1) for bound in after.answer_s.bounds] + [0]
        assert after.answer_s.sum - before.answer_s.sum == pytest.approx(10 * 0.08)
        assert after.sample_lag_s.counts[0] == after.outbox.samples_taken  # no sample was late


@define(eq=False)
class Counting(trio.abc.Stream):
    """A stream that notes what is sent over it."""

    stream: trio.abc.Stream
    sent: bytearray = field(factory=bytearray)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_bytes_are_counted_over_all_links(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count covers the websockets' streams: that of the lost link and that of the next."""
    streams = list[Counting]()
    open_stream = Network.open_stream

    async def counting(self: Network, host: str, port: int) -> trio.abc.Stream:
        streams.append(Counting(await open_stream(self, host, port)))
        return streams[-1]

    monkeypatch.setattr(Network, "open_stream", counting)
    async with world() as w:
        await w.settled()
        w.network.reset()
        await w.until("Failed")
        await w.until("Reconnected")
        await trio.sleep(3)
        registrations = [stream.sent for stream in streams if stream.sent.startswith(b"POST")]
        all_sent = sum(len(stream.sent) for stream in streams)
        assert len(registrations) == 2
        assert w.runner.statistics().bytes_sent == all_sent - sum(map(len, registrations))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "0.04 s"),
        (9.96, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (5400, "90 min"),
        (7200, "2 h"),
        (9000, "2.5 h"),
        (172_800, "2 d"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    """Each duration is shown in the largest unit of which it has at least two."""
    assert duration(seconds) == text


async def test_that_it_goes_on_trying_is_said_once(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """At the first dial of a trouble that fails, however many reasons there are."""
    async with world(up=False) as w:
        await trio.sleep(10)
        with w.network.losing_dials():
            await trio.sleep(60)
        warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 2
        assert [GOES_ON in warning for warning in warnings] == [True, False]


async def test_after_a_refusal_the_log_says_more_in_an_hour(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting does not help, so the log is silent for longer than in an outage."""
    async with world(aggregator=Aggregator(secret=SALT)):
        await trio.sleep(10)
        (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        assert warning.endswith("The runner goes on trying and will say more within 60 min.")


@pytest.mark.parametrize("waiting", [0, 33])
async def test_what_waited_from_before_the_start_is_told_when_it_is_delivered(
    waiting: int, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The first link is Connected before that; a sample of before is 1 of 33."""
    caplog.set_level(logging.INFO)
    outbox = MemoryOutbox()
    for count in range(waiting):
        tags = [mdl.TagValue(name="Old", tick_time=wall_clock(), value=count, value_unit=None)]
        outbox.put(em.TagsUpdatedMsg(tags=tags))
    async with world(outbox=outbox) as w:
        await w.settled()
        await trio.sleep(10)
        told = "INFO What waited from before the start is delivered; messages: 33"
        lines = said(caplog)
        assert lines.count(told) == (waiting == 33)
        assert sum("waited from before" in line for line in lines) == (waiting == 33)
        if waiting:
            assert lines.index("INFO Started -> Connected") < lines.index(told)
