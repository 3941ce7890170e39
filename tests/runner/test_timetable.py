"""When the runner does what, to the hundredth of a second of virtual time.

The waits before a dial are the middles of their ranges (`Middle`): 0.6875 s before the first try
after a success, and then 1.375, 2.75, 5.5 and 6.875 s. While dials are refused at once, every
further wait of the first half minute is 1.375 s.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import pytest
import trio
import trio.testing

from tests.helpers.unit import EPOCH, Middle, Unit, wall_clock, world
from trio_runner import EngineDispatcher, EngineRunner, Timing
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.simulation import Aggregator

T = TypeVar("T")


async def test_the_first_dial_leads_straight_to_connected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Streams in memory take no time: registered, upgraded, introduced and Connected at 0 s."""
    async with world() as w:
        await w.until("Connected")
        assert trio.current_time() == 0
        # The ticks lie at 0.1 s, 0.2 s, and so on. The first takes a snapshot, and then every third
        # (0.3 / 0.1) takes a sample: 0.1, 0.4, 0.7, 1.0.
        await trio.sleep(1.05)
        assert w.changes == [(0, "Connected")]
        received = w.aggregator.engine().received
        assert [type(r.message) for r in received[:2]] == [em.UodInfoMsg, em.MethodMsg]
        samples = [r for r in received if isinstance(r.message, em.TagsUpdatedMsg)]
        assert [round(r.time_s, 6) for r in samples] == [0.1, 0.4, 0.7, 1.0]


async def test_refused_dials_are_repeated_soon(autojump_clock: trio.testing.MockClock) -> None:
    """A host that refuses at once is tried again after 2 s at most."""
    async with world(up=False) as w:
        await trio.sleep(4.5)
        # Dials at 0; 0.6875; 0.6875 + 1.375 = 2.0625; and 3.4375. The next would be at 4.8125.
        assert w.changes[:8] == [
            (0, "Failed"),
            (0, "Disconnected"),
            (0.6875, "Failed"),
            (0.6875, "Disconnected"),
            (2.0625, "Failed"),
            (2.0625, "Disconnected"),
            (3.4375, "Failed"),
            (3.4375, "Disconnected"),
        ]
        w.aggregator.up()
        await w.until("Reconnected")
        assert w.changes[-3:] == [
            (4.8125, "Reconnecting"),
            (4.8125, "CatchingUp"),
            (4.8125, "Reconnected"),
        ]


async def test_a_black_hole_costs_one_dial_and_a_growing_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A dial that gets no answer ends after 10 s, and the waits grow to 10 s at most."""
    unit = Unit()
    dispatcher = EngineDispatcher("hole.example", handlers=unit, open_stream=_black_hole)
    runner = EngineRunner(dispatcher, unit, unit, rng=Middle(), clock=wall_clock)
    failed: list[float] = []

    async def note() -> None:
        failed.append(trio.current_time())

    runner.failed_callback = note
    with trio.move_on_after(100):
        await runner.run()
    # First 10 s, then each time the wait and 10 s more: 0.6875, 1.375, 2.75, 5.5, 6.875.
    assert failed == [10, 20.6875, 32.0625, 44.8125, 60.3125, 77.1875, 94.0625]
    assert "did not let us in within 10 s" in str(runner.statistics().last_failure)


async def _black_hole(host: str, port: int) -> trio.abc.Stream:
    await trio.sleep_forever()
    raise AssertionError


async def test_two_outages_in_a_row_lose_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Each outage has its own timetable, the backoff begins anew, and no sample is missing."""
    async with world() as w:
        await trio.sleep(1)
        async with w.aggregator.outage():
            await trio.sleep(1)
        # Lost at 1 s. Dials at 1.6875 s (refused) and 1.6875 + 1.375 = 3.0625 s.
        await w.until("Reconnected")
        assert trio.current_time() == 3.0625
        await trio.sleep_until(14)
        async with w.aggregator.outage(kill=True):
            await trio.sleep(0.5)
        # Lost at 14 s, after more than 10 s. The dial at 14.6875 s succeeds.
        await w.until("Reconnected")
        await trio.sleep_until(16)
    assert w.changes == [
        (0, "Connected"),
        (1, "Failed"),
        (1, "Disconnected"),
        (1.6875, "Failed"),
        (1.6875, "Disconnected"),
        (3.0625, "Reconnecting"),
        (3.0625, "CatchingUp"),
        (3.0625, "Reconnected"),
        (14, "Failed"),
        (14, "Disconnected"),
        (14.6875, "Reconnecting"),
        (14.6875, "CatchingUp"),
        (14.6875, "Reconnected"),
        (16, "Stopped"),
        (16, "ShutdownComplete"),
    ]
    assert w.counts() == list(range(1, w.unit.count + 1))


async def test_catching_up_lasts_as_long_as_the_aggregator_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """CatchingUp ends when the aggregator has answered the last message of the backlog."""
    async with world() as w:
        await trio.sleep(0.05)
        w.aggregator.handling_time_s = 0.05
        async with w.aggregator.outage():
            await trio.sleep(20)
        # Offline the interval is the unit's data-log interval, 1 s, and two ticks. The link is lost
        # at 0.05 s, so the samples are those of the ticks 0.1, 1.3, 2.5, ..., 19.3: 17.
        with w.runner.state_changes() as changes:
            async for change in changes:
                if change.after == "CatchingUp":
                    began = trio.current_time()
                if change.after == "Reconnected":
                    break
        # The 17 take 0.85 s, in which 3 more come at the steady rate of one in 0.3 s. While these
        # take 0.15 s, one more may come. Each live sample waits until the history is sent.
        waiting = len(w.counts())
        assert trio.current_time() - began == pytest.approx(0.05 * waiting)
        assert w.counts() == list(range(1, waiting + 1))


async def test_offline_samples_are_taken_at_the_units_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without a link one is taken every 5 s, or at the data-log interval and two ticks."""
    for interval_s, expected in (
        (60.0, [0.1, 5.3, 10.5]),
        (5.0, [0.1, 5.3, 10.5]),
        (2.4, [0.1, 2.7, 5.3, 7.9, 10.5]),
    ):
        taken: list[float] = []
        unit = Unit(data_log_interval_s=interval_s)
        aggregator = Aggregator()
        start = trio.current_time()
        async with world(unit=unit, aggregator=aggregator) as w:
            await w.until("Connected")
            async with aggregator.outage():
                await trio.sleep(11)
            await w.until("Reconnected")
            taken = [
                round(message.tags[0].tick_time - wall_clock() + trio.current_time() - start, 3)
                for message in aggregator.messages(em.TagsUpdatedMsg)
            ]
        assert taken[: len(expected)] == expected


async def test_a_silent_aggregator_is_noticed_within_ten_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A missing answer ends the link 10 s after its message, and the message is repeated."""
    async with world() as w:
        await w.settled()
        w.aggregator.muted = True
        await w.until("Failed")
        # The first sample goes out at 0.1 s and is given up on at 10.1 s.
        assert trio.current_time() == pytest.approx(10.1)
        assert "did not answer a message" in str(w.runner.statistics().last_failure)
        w.aggregator.muted = False
        await w.until("Reconnected")
        numbers = [
            r.sequence_number
            for r in w.aggregator.engine().received
            if isinstance(r.message, em.TagsUpdatedMsg)
        ]
        resent = len(numbers) - len(set(numbers))
        assert resent > 0
        assert [n for i, n in enumerate(numbers) if n not in numbers[:i]] == sorted(set(numbers))
        # Samples are taken at least at the offline rate, so the silent link leaves no hole.
        ticks = sorted({t.tags[0].tick_time for t in w.aggregator.messages(em.TagsUpdatedMsg)})
        gaps = [b - a for a, b in pairwise(ticks) if b < ticks[0] + 10]
        assert max(gaps) < 5.01


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
@pytest.mark.parametrize(
    "state",
    [
        "Started",
        "Connected",
        "Failed",
        "Disconnected",
        "Reconnecting",
        "CatchingUp",
        "Reconnected",
    ],
)
async def test_a_stop_in_every_state_ends_in_order(
    state: str, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Wherever it is stopped, it goes through Stopped to ShutdownComplete and leaves no task."""
    unit, aggregator, seen = Unit(), Aggregator(), list[str]()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as background:
        opener = _black_hole if state == "Started" else aggregator.in_memory(background)
        dispatcher = EngineDispatcher("aggregator.example", handlers=unit, open_stream=opener)
        runner = EngineRunner(dispatcher, unit, unit, rng=Middle(), clock=wall_clock)
        reached = trio.Event()

        async def note(before: str, after: str) -> None:
            seen.append(after)

        async def hold() -> None:
            reached.set()
            await trio.sleep_forever()

        runner.state_changing_callback = note
        if state in ("Started", "Disconnected"):  # these states last, and have no callback
            background.start_soon(_after, 0.5, reached)
        else:
            setattr(runner, f"{state.lower()}_callback", hold)
        if state in ("Failed", "Disconnected"):
            aggregator.down()
        elif state != "Connected":
            background.start_soon(_restart_once_connected, runner, aggregator)
        async with trio.open_nursery() as runs:
            runs.start_soon(runner.run)
            await reached.wait()
            assert runner.state == state
            stopped_at = trio.current_time()
            if how == "shutdown":
                await runner.shutdown()
            else:
                runs.cancel_scope.cancel()
        assert trio.current_time() == stopped_at
        assert seen[-2:] == ["Stopped", "ShutdownComplete"]
        assert runner.state == "ShutdownComplete"
        background.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def _after(delay_s: float, event: trio.Event) -> None:
    await trio.sleep(delay_s)
    event.set()


async def _restart_once_connected(runner: EngineRunner, aggregator: Aggregator) -> None:
    with runner.state_changes() as changes:
        async for change in changes:
            if change.after == "Connected":
                await aggregator.restart()
                return


@pytest.mark.parametrize("kind", [em.UodInfoMsg, em.RunStartedMsg, em.TagsUpdatedMsg])
async def test_a_link_lost_while_reconnecting_or_catching_up_is_replaced(
    kind: type[em.EngineMessage], autojump_clock: trio.testing.MockClock
) -> None:
    """A second failure, in the introduction or the backlog, loses nothing, and one sender stays."""
    async with world() as w:
        await w.until("Connected")
        w.runner.on_start("run-1")
        await trio.sleep(0.5)
        cuts = iter([True])

        async def cut(message: em.EngineMessage) -> m.MessageBase | None:
            if isinstance(message, kind) and next(cuts, False):
                w.aggregator.drop()
                await trio.lowlevel.checkpoint()
            return None

        async with w.aggregator.outage():
            w.runner.on_notify_command("while away")
            await trio.sleep(3)
        w.aggregator.on_message = cut
        # Lost at 0.5 s. The dials at 1.125, 2.0625 and 3.4375 s are refused, that at 4.8125 s is
        # cut.
        await w.until("Reconnected")
        await trio.sleep(1)
        states = [state for _, state in w.changes]
        end = "CatchingUp" if kind is em.TagsUpdatedMsg else "Reconnecting"
        assert states.count("Reconnected") == 1
        assert (end, "Failed") in list(pairwise(states))
        assert _unique(w.counts()) == list(range(1, w.unit.count + 1))
        told = [n.notification.body for n in w.aggregator.messages(em.WebPushNotificationMsg)]
        assert _unique(told) == ["Run started.", "while away"]
        assert w.aggregator.engine().connections[-1].closed_s is None


def _unique(items: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(items))


async def test_a_stop_flushes_what_waits_within_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What waits is sent at a stop. After 10 s the rest is given up, and the runner ends."""
    async with world() as w:
        await w.settled()
        w.aggregator.handling_time_s = 0.5
        for number in range(15):
            w.runner.post(w.unit.create_run_started_msg(str(number), EPOCH))
            w.runner.post(w.unit.create_run_stopped_msg(str(number)))
        await trio.sleep(1.25)  # two are answered, at 0.5 and 1.0 s
        assert len(w.aggregator.messages(em.RunStoppedMsg)) == 1
        await w.runner.shutdown()
        assert trio.current_time() == 11.25
        # One answer every 0.5 s from 0.5 s to 11.0 s makes 22, and the next one is on its way.
        assert w.runner.statistics().outbox.delivered == 22
        assert w.changes[-2:] == [(1.25, "Stopped"), (11.25, "ShutdownComplete")]


async def test_a_flush_ends_with_its_link(autojump_clock: trio.testing.MockClock) -> None:
    """If the link is lost in the last flush, there is nothing more to wait for."""
    async with world() as w:
        await w.settled()
        w.aggregator.muted = True
        w.runner.on_notify_command("unheard")
        w.nursery.start_soon(_drop_after, 1, w.aggregator)
        await w.runner.shutdown()
        assert w.changes[-2:] == [(0, "Stopped"), (1, "ShutdownComplete")]
        assert w.runner.buffer_size == 1


async def _drop_after(delay_s: float, aggregator: Aggregator) -> None:
    await trio.sleep(delay_s)
    aggregator.drop()


async def test_a_stop_closes_the_websocket_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """The aggregator sees an orderly close, code 1000, after everything has been delivered."""
    async with world() as w:
        await w.settled()
        w.runner.on_start("run-1")
        w.runner.on_stop()
        await w.runner.shutdown()
        kinds = [type(r.message).__name__ for r in w.aggregator.engine().received]
        assert kinds == [
            "UodInfoMsg",
            "MethodMsg",
            "ControlStateMsg",
            "MethodStateMsg",
            "RunStartedMsg",
            "WebPushNotificationMsg",
            "RunStoppedMsg",
            "WebPushNotificationMsg",
        ]
        assert w.runner.buffer_size == 0


async def test_a_stop_flushes_even_if_a_callback_has_tasks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A cancellation that leaves a callback's nursery as a group is still a cancellation."""
    async with world(run=False) as w:

        async def callback() -> None:
            w.runner.on_notify_command("from the callback")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)

        w.runner.connected_callback = callback
        await w.nursery.start(w.runner.run)
        await trio.sleep(0.05)
        assert w.runner.buffer_size == 1
        await w.runner.shutdown()
        assert w.runner.buffer_size == 0
        assert [state for _, state in w.changes] == ["Connected", "Stopped", "ShutdownComplete"]


async def test_a_bug_in_a_callback_ends_the_run_with_its_traceback(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What a callback raises reaches the caller of run(), and nothing is left running."""
    async with world(run=False) as w:

        async def callback() -> None:
            raise ValueError("a bug")

        w.runner.connected_callback = callback
        with pytest.RaisesGroup(
            pytest.RaisesExc(ValueError, match="a bug"), flatten_subgroups=True
        ):
            await w.runner.run()
        assert w.runner.state == "ShutdownComplete"


async def test_no_sample_is_taken_while_handlers_end_after_a_bug(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A bug ends the root: the ticker does not outlive it by the second that handlers have."""

    async def insist(command: str) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async def broken() -> None:
        raise ValueError("a bug")

    unit = Unit(on_command=insist)
    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with world(unit=unit, timing=Timing(offline_s=0.3)) as w:
            w.runner.failed_callback = broken
            await w.settled()
            await w.aggregator.call("host_Unit", am.CancelMsg(exec_id="1"))  # answered at 1.5 s
            await trio.sleep(0.05)
            taken = unit.count
            await w.aggregator.restart()
            await w.until("ShutdownComplete")
            assert trio.current_time() == pytest.approx(2.55)
            assert unit.count == taken


async def test_no_sample_is_taken_in_the_flush_after_a_bug(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In Stopped nothing is sampled, whatever has stopped the runner."""

    async def fail() -> None:
        w.aggregator.muted = True
        w.runner.on_notify_command("never answered")
        raise ValueError("a bug")

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with world(run=False) as w:
            w.runner.first_steady_state_callback = fail
            w.nursery.start_soon(w.runner.run)
            await w.until("Stopped")
            taken = w.unit.count
            await w.until("ShutdownComplete")
            assert trio.current_time() == 10
            assert w.unit.count == taken


async def test_all_callbacks_are_called_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """The seven callbacks over a first link and an outage; the first steady state comes once."""
    async with world(run=False) as w:
        told: list[str] = []
        for name in (
            "connected",
            "failed",
            "reconnecting",
            "catchingup",
            "reconnected",
            "first_steady_state",
        ):

            async def callback(name: str = name) -> None:
                told.append(name)

            setattr(w.runner, f"{name}_callback", callback)
        await w.nursery.start(w.runner.run)
        await trio.sleep(1)
        async with w.aggregator.outage():
            await trio.sleep(0.1)
        await w.until("Reconnected")
        assert told == [
            "connected",
            "first_steady_state",
            "failed",
            "reconnecting",
            "catchingup",
            "reconnected",
        ]
        assert len(w.changes) == 6


async def test_a_start_is_logged_only_if_a_callback_starts_something(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a callback for the first steady state nothing is started, and nothing is logged."""
    caplog.set_level("INFO", "trio_runner")
    async with world() as w:
        await w.settled()
    assert "Starting engine" not in caplog.text


async def test_a_first_steady_state_that_was_cut_short_is_announced_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If an engine's start was cancelled with its link, the next link starts it."""
    caplog.set_level("INFO", "trio_runner")
    async with world(run=False) as w:
        told: list[str] = []

        async def start_engine() -> None:
            told.append("begun")
            await trio.sleep(1)
            told.append("done")

        w.runner.first_steady_state_callback = start_engine
        await w.nursery.start(w.runner.run)
        await trio.sleep(0.5)
        w.aggregator.drop()
        await trio.sleep(10)
        assert told == ["begun", "begun", "done"]
    assert caplog.text.count("Starting engine on first steady-state") == 2


@pytest.mark.parametrize("fault", ["raises", "hangs"])
async def test_a_callback_cannot_keep_the_runner_from_ending(
    fault: str, autojump_clock: trio.testing.MockClock
) -> None:
    """A callback that fails or hangs at the end delays it by 1 s for each change at most."""
    async with world(run=False, up=False) as w:

        async def callback(before: str, after: str) -> None:
            if after in ("Stopped", "ShutdownComplete"):
                if fault == "raises":
                    raise ValueError("a bug")
                await trio.sleep_forever()

        w.runner.state_changing_callback = callback
        with w.runner.state_changes() as changes:
            async with trio.open_nursery() as runs:
                runs.start_soon(_run_expecting, w.runner, fault)
                await trio.sleep(0.3)
                await w.runner.shutdown()
            assert trio.current_time() == (0.3 if fault == "raises" else 2.3)
            assert [change.after async for change in changes][-2:] == [
                "Stopped",
                "ShutdownComplete",
            ]
        assert w.runner.state == "ShutdownComplete"


async def _run_expecting(runner: EngineRunner, fault: str) -> None:
    if fault == "raises":
        with pytest.raises(ValueError, match="a bug"):
            await runner.run()
    else:
        await runner.run()


async def test_what_waits_is_flushed_even_if_a_callback_fails(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A bug ends the runner, but what was taken is sent first."""
    async with world(run=False) as w:

        async def callback() -> None:
            w.runner.on_notify_command("last words")
            raise ValueError("a bug")

        w.runner.connected_callback = callback
        with pytest.RaisesGroup(
            pytest.RaisesExc(ValueError, match="a bug"), flatten_subgroups=True
        ):
            await w.runner.run()
        told = [n.notification.body for n in w.aggregator.messages(em.WebPushNotificationMsg)]
        assert told == ["last words"]


async def test_a_runner_runs_once(autojump_clock: trio.testing.MockClock) -> None:
    """A second run() is refused; after an early shutdown(), run() ends at once."""
    async with world() as w:
        with pytest.raises(RuntimeError, match="can run only once"):
            await w.runner.run()
    async with world(run=False, aggregator=Aggregator()) as w:
        await w.runner.shutdown()
        await w.runner.run()
        assert w.changes == [(0, "Stopped"), (0, "ShutdownComplete")]
        assert w.aggregator.engines == {}


async def test_times_can_be_set(autojump_clock: trio.testing.MockClock) -> None:
    """Given times apply, and a time of 0 is refused."""
    async with world(timing=Timing(tick_s=0.5, steady_s=1.0)) as w:
        await trio.sleep(3.75)
        # Ticks at 0.5, 1.0, and so on; a sample at the first, and then at every second one.
        assert [r.time_s for r in w.aggregator.engine().received if _is_sample(r.message)] == [
            0.5,
            1.5,
            2.5,
            3.5,
        ]
    with pytest.raises(ValueError, match="steady_s"):
        Timing(steady_s=0)


def _is_sample(message: em.EngineMessage) -> bool:
    return isinstance(message, em.TagsUpdatedMsg)
