"""The rules of delivery, at any size, distance, age and mood of the aggregator.

The rules and their reasons are in `trio_runner/DELIVERY.md`.
"""

import math
from collections.abc import Callable

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from tests.helpers.unit import EPOCH, Unit, World, world
from trio_runner import MemoryOutbox, Timing
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl

Clock = trio.testing.MockClock

FAILED = m.ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")


def error(text: str) -> mdl.ErrorLogEntry:
    return mdl.ErrorLogEntry(message=text, created_time=EPOCH, severity=40)


def stopped(run_id: str, archive: str | None = None, lines: int = 0) -> em.RunStoppedMsg:
    """Return the end of a run with an archive and a run log of this many lines."""
    value = mdl.TagValue(name="Count", tick_time=EPOCH, value=1, value_unit="")
    line = mdl.RunLogLine(
        id="1",
        command_name="Wait",
        start=EPOCH,
        end=EPOCH,
        progress=1.0,
        start_values=[value] * 100,
        end_values=[],
    )
    return em.RunStoppedMsg(
        run_id=run_id,
        runlog=mdl.RunLog(lines=[line] * lines),
        method_state=mdl.MethodState.untouched(),
        archive=archive,
        archive_filename=archive and "run.csv",
    )


@define
class Handlers:
    """An aggregator's handler of one type of message that fails or takes its time."""

    kind: type[em.EngineMessage]
    answer: Callable[[em.EngineMessage], m.MessageBase | None] = lambda _: None
    takes_s: float = 0.0
    seen_s: list[float] = field(factory=list)
    """When the handler was called."""

    async def __call__(self, message: em.EngineMessage) -> m.MessageBase | None:
        if not isinstance(message, self.kind):
            return None
        self.seen_s.append(trio.current_time())
        await trio.sleep(self.takes_s)
        return self.answer(message)


def newest_age(w: World) -> float:
    """Return how old the newest value is that the aggregator has shown (s)."""
    for received in reversed(w.aggregator.engine().received):
        if isinstance(received.message, em.TagsUpdatedMsg) and received.refused is None:
            return EPOCH + trio.current_time() - received.message.tags[0].tick_time
    return math.inf


# Distance


@pytest.mark.parametrize("jitter_s", [0.0, 0.3])
@pytest.mark.parametrize("there_and_back_s", [0.4, 1.0, 2.0])
async def test_few_messages_wait_at_any_distance_even_after_it_has_changed(
    there_and_back_s: float, jitter_s: float, autojump_clock: Clock
) -> None:
    """A path of 20 ms slows down for ten minutes: fewer than 20 wait, and the newest is young."""
    async with world() as w:
        w.network.latency_s = 0.01
        await trio.sleep(30)
        w.network.latency_s, w.network.jitter_s = there_and_back_s / 2, jitter_s
        most, oldest_s = 0, 0.0
        for second in range(600):
            await trio.sleep(1)
            waiting = w.runner.statistics().outbox.waiting
            most = max(most, waiting)
            if second >= 30:  # by now the window has found the new distance
                oldest_s = max(oldest_s, newest_age(w))
        assert most < 20
        # 5 s, and the way and jitter of the sample going there and of the earlier answer coming
        # back.
        assert oldest_s < 5 + there_and_back_s + 2 * jitter_s


async def test_calls_are_answered_though_the_path_has_slowed(autojump_clock: Clock) -> None:
    """Over 400 ms with jitter, each of 100 calls has its answer within 2 s."""
    async with world() as w:
        await trio.sleep(30)
        w.network.latency_s, w.network.jitter_s = 0.2, 0.3
        for _ in range(100):
            await trio.sleep(5)
            asked = trio.current_time()
            await w.aggregator.call("host_Unit", am.InjectCodeMsg(pcode="Mark: A"))
            assert trio.current_time() - asked < 2


async def test_calls_are_answered_though_states_change_at_a_slow_aggregator(
    autojump_clock: Clock,
) -> None:
    """Each message takes 0.9 s, and three states change all the time: 60 calls in 5 min.

    One message of ours is under way then, or two while the window tests whether there is room. So
    2 * 0.9 = 1.8 s and the way pass before the answer to the call.
    """
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(10)
        w.aggregator.handling_time_s = 0.9

        async def change() -> None:
            for number in range(1, 1_000_000):
                await trio.sleep(0.3)
                w.unit.control = evolve(w.unit.control, is_running=number % 2 == 0)
                w.unit.run_log[:] = [evolve(stopped("", lines=1).runlog.lines[0], id=str(number))]
                line = mdl.MethodLine(id="0", content=str(number))
                w.unit.method = mdl.Method(version=number, lines=[line])

        w.nursery.start_soon(change)
        for number in range(60):
            await trio.sleep(5 + 0.13 * (number % 7))
            asked = trio.current_time()
            await w.aggregator.call("host_Unit", am.InjectCodeMsg(pcode="Mark: A"))
            assert trio.current_time() - asked < 1.9
        assert w.runner.statistics().links == 1
        assert newest_age(w) < 10  # samples come every second, and 4 of 5 messages are samples


async def test_a_thin_path_gets_fewer_samples_and_never_old_ones(autojump_clock: Clock) -> None:
    """At 400 B/s about one sample a second fits; at full speed the steady rate is back."""
    async with world(unit=Unit(data_log_interval_s=5)) as w:
        await trio.sleep(30)
        w.network.bytes_per_s = 400
        before = w.unit.count
        for second in range(300):
            await trio.sleep(1)
            if second > 10:
                assert newest_age(w) < 5 + 0.94  # plus the time of one sample on this path
        thin = w.unit.count - before
        # A sample of the unit is 375 bytes on the wire, so one fits in 0.94 s, not in 0.3
        # s.
        assert 0.5 * 300 <= thin < 1.1 * 300
        w.network.bytes_per_s = math.inf
        await trio.sleep(10)
        before = w.unit.count
        await trio.sleep(30)
        assert w.unit.count - before >= 99  # one every 0.3 s


# Notices


async def test_what_is_logged_with_every_sample_holds_up_nothing(autojump_clock: Clock) -> None:
    """Over 300 ms there and back, for 30 min: few wait, states flow, and no entry is missing."""
    async with world() as w:
        w.network.latency_s = 0.15
        await w.until("Connected")
        logged = 0
        for second in range(1800):
            for _ in range(4):
                w.unit.errors.append(error(str(logged)))
                logged += 1
            w.unit.control = mdl.ControlState(
                is_running=second % 2 == 0, is_holding=False, is_paused=False
            )
            await trio.sleep(1)
            assert w.runner.statistics().outbox.waiting < 20
        await trio.sleep(2)
        record = w.aggregator.engine()
        assert [e.message for e in record.unit.error_log] == [str(n) for n in range(logged)]
        states = w.aggregator.messages(em.ControlStateMsg)
        assert len(states) > 1700


async def test_a_notice_that_fails_holds_up_no_sample_and_the_end_of_its_run_for_3_s(
    autojump_clock: Clock,
) -> None:
    """The notice is tried at 0, 1 and 3 s. After the third failure the end of the run passes it."""
    async with world() as w:
        await w.settled()
        handlers = Handlers(em.WebPushNotificationMsg, lambda _: FAILED)
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(1)
        w.aggregator.on_message = handlers
        began = trio.current_time()
        w.runner.on_notify_command("look")
        w.runner.post(stopped("run-1"))
        before = len(w.counts())
        await trio.sleep(2.9)
        assert w.aggregator.recent_runs == []
        await trio.sleep(0.2)
        assert [run.run_id for run in w.aggregator.recent_runs] == ["run-1"]
        w.aggregator.on_message = None
        await trio.sleep(10)
        assert [s - began for s in handlers.seen_s] == pytest.approx([0, 1, 3])
        told = w.aggregator.engine().notifications
        assert [n.notification.body for n in told] == ["look"]  # this arrives at 7 s
        assert len(w.counts()) > before + 30
        assert w.runner.statistics().outbox.set_aside == 0


async def test_notices_that_fail_do_not_starve_a_sample_that_has_failed(
    autojump_clock: Clock,
) -> None:
    """20 notices fail after 4 s of handling each, and the sample still has its turn at once."""
    async with world() as w:
        await w.settled()
        failures = iter([FAILED])
        slow = Handlers(em.WebPushNotificationMsg, lambda _: FAILED, takes_s=4)

        async def handle(message: em.EngineMessage) -> m.MessageBase | None:
            if isinstance(message, em.TagsUpdatedMsg) and trio.current_time() > 300:
                return next(failures, None)
            return await slow(message)

        w.aggregator.on_message = handle
        for number in range(20):
            w.runner.on_notify_command(str(number))
        await trio.sleep(300)
        for _ in range(30):
            await trio.sleep(10)
            # The sample's pause is 1 s, and a few notices of 4 s are handled before its tries.
            assert newest_age(w) < 20


async def test_what_is_logged_in_an_outage_is_one_message_and_bounded(
    autojump_clock: Clock,
) -> None:
    """Of 3,000 entries the first 500 and the last 500 are kept, with the number left out."""
    async with world(up=False) as w:
        for second in range(300):
            for number in range(10):
                w.unit.errors.append(error(str(10 * second + number)))
            await trio.sleep(5)
        w.aggregator.up()
        await trio.sleep(60)
        messages = w.aggregator.messages(em.ErrorLogMsg)
        assert len(messages) <= 2  # the last entries may have been logged after the rest
        *texts, outage = [e.message for e in w.aggregator.engine().unit.error_log]
        assert outage.startswith("The aggregator is back after 25 min")
        assert texts[:500] == [str(n) for n in range(500)]
        assert texts[500] == "2000 entries of the error log are left out here"
        assert texts[501:] == [str(n) for n in range(2500, 3000)]


@pytest.mark.parametrize("kind", [em.WebPushNotificationMsg, em.ErrorLogMsg])
async def test_a_notice_that_ends_every_link_holds_up_no_sample(
    kind: type[em.EngineMessage], autojump_clock: Clock
) -> None:
    """It has 21 tries with pauses of 0 to 60 s, in which samples flow; 25 min in all."""
    async with world() as w:
        await w.settled()
        await trio.sleep(1)
        w.aggregator.on_message = Handlers(kind, lambda _: w.aggregator.drop())
        if kind is em.ErrorLogMsg:
            w.unit.errors.append(error("boom"))
        else:
            w.runner.on_notify_command("hello")
        oldest_s = 0.0
        for _ in range(1500):
            await trio.sleep(1)
            oldest_s = max(oldest_s, newest_age(w))
        # Two links live for 0 and 2 s, so the wait before the third is the longest of the backoff,
        # 5.5 to 6.875 s.
        assert oldest_s < 7
        statistics = w.runner.statistics()
        assert (statistics.links, statistics.outbox.set_aside) == (22, 1)


async def test_a_notice_that_has_a_pause_left_holds_up_no_new_link(autojump_clock: Clock) -> None:
    """Its eighth try is due 123 s after the first. The link is lost at 64 s and comes back."""
    async with world() as w:
        await w.settled()
        handlers = Handlers(em.WebPushNotificationMsg, lambda _: FAILED)
        w.aggregator.on_message = handlers
        w.runner.on_notify_command("hello")
        await trio.sleep(64)
        w.aggregator.drop()
        await w.until("Reconnected")
        for _ in range(50):
            await trio.sleep(1)
            assert newest_age(w) < 0.5
        assert len(handlers.seen_s) == 7


async def test_notices_go_out_one_after_the_other_without_waiting(autojump_clock: Clock) -> None:
    """Over 1.5 s there and back, one notification and one entry a second: few of them wait."""
    async with world() as w:
        await w.until("Connected")
        w.network.latency_s = 0.75
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(20)
        for number in range(120):
            w.runner.on_notify_command(str(number))
            w.unit.errors.append(error(str(number)))
            await trio.sleep(1)
            # What 1.5 s bring is on the way: 5 samples, 2 notifications and 2 logs.
            assert w.runner.statistics().outbox.waiting <= 12
        w.runner.post(stopped("run-1"))
        # All before it is answered within 1.5 s, and it arrives 0.75 s later. One sample may have
        # waited for the window.
        await trio.sleep(2 * 1.5 + 0.75)
        assert len(w.aggregator.recent_runs) == 1
        told = w.aggregator.engine().notifications
        assert [n.notification.body for n in told] == [str(n) for n in range(120)]


# States


def changed(w: World, kind: type[em.EngineMessage]) -> None:
    """Change the method or the run log, so that there is something to tell."""
    if kind is em.MethodMsg:
        lines = [mdl.MethodLine(id="0", content="Mark: A")]
        w.unit.method = mdl.Method(version=1, lines=lines)
    else:
        w.unit.run_log.append(stopped("", lines=1).runlog.lines[0])


@pytest.mark.parametrize("kind", [em.MethodMsg, em.RunLogMsg])
async def test_a_state_that_ends_every_link_is_left_out_until_it_changes(
    kind: type[em.EngineMessage], autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends eight links in a row. Then all else flows, and it is tried once when it changes."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(5)
        handlers = Handlers(kind, lambda _: w.aggregator.drop())
        w.aggregator.on_message = handlers
        changed(w, kind)
        oldest_s = 0.0
        for _ in range(1200):
            await trio.sleep(1)
            oldest_s = max(oldest_s, newest_age(w))
        # The pauses are 0, 2, 4, 8, 16, 32 and 60 s. Until links live for 10 s, the longest wait of
        # the backoff is 6.875 s.
        assert oldest_s < 7
        assert len(handlers.seen_s) == 8
        assert w.runner.statistics().links == 9
        assert w.counts() == list(range(1, w.counts()[-1] + 1))
        changed(w, kind)
        w.unit.method = mdl.Method(version=2, lines=[mdl.MethodLine(id="0", content="Mark: B")])
        w.aggregator.on_message = handlers = Handlers(kind)
        await trio.sleep(1)
        assert len(handlers.seen_s) == 1
        assert w.runner.statistics().outbox.set_aside == 0
    assert f"while {kind.__name__} was sent; it is left out until it changes" in caplog.text


@pytest.mark.parametrize("kind", [em.UodInfoMsg, em.MethodMsg, em.RunStartedMsg, em.RunLogMsg])
async def test_a_state_that_takes_12_s_is_waited_for_on_the_next_link_too(
    kind: type[em.EngineMessage], autojump_clock: Clock
) -> None:
    """The second try has 20 s, or the third if the first was not alone. This patience is kept."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(5)
        w.aggregator.on_message = Handlers(kind, takes_s=12)
        w.aggregator.drop()
        changed(w, kind)
        await trio.sleep(180)
        links = w.runner.statistics().links
        assert links <= 5
        assert newest_age(w) < 13
        w.aggregator.drop()
        await trio.sleep(60)
        assert w.runner.statistics().links == links + 1
        assert newest_age(w) < 13


@pytest.mark.parametrize(
    ("answer", "given_up_s"),
    # 21 failures: between them are pauses of 1 + 2 + 4 + 8 + 16 + 32 + 14 * 60 = 903 s.
    [(FAILED, 903.0), (m.ProtocolErrorMessage(protocol_msg="Message deserialization failed"), 0.0)],
)
async def test_a_run_that_cannot_be_told_again_ends_all_the_same(
    answer: m.MessageBase,
    given_up_s: float,
    autojump_clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What follows waits as for any event, 15 min. An aggregator that has the run lists it."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(5)
        w.aggregator.on_message = handlers = Handlers(em.RunStartedMsg, lambda _: answer)
        w.aggregator.drop()
        w.runner.on_notify_command("hello")
        await trio.sleep(10)
        w.runner.post(stopped("run-1"))
        await trio.sleep(given_up_s + 0.1)
        assert handlers.seen_s[-1] - handlers.seen_s[0] == pytest.approx(given_up_s)
        assert len(set(handlers.seen_s)) == len(handlers.seen_s)  # each try has its pause
        assert [run.run_id for run in w.aggregator.recent_runs] == ["run-1"]
        told = w.aggregator.engine().notifications
        assert [n.notification.body for n in told] == ["hello"]
        await trio.sleep(60)
        assert w.runner.statistics().outbox.waiting < 20
    assert "The aggregator did not take RunStartedMsg" in caplog.text
    assert caplog.text.count("its samples count as given up") == 1


async def test_a_run_is_told_again_though_a_link_has_ended_while_it_was_told(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once is no sign that the aggregator cannot take it."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(5)
        handlers = Handlers(em.RunStartedMsg)

        def drop_once(_: em.EngineMessage) -> None:
            if len(handlers.seen_s) == 1:
                w.aggregator.drop()

        w.aggregator.on_message, handlers.answer = handlers, drop_once
        w.aggregator.drop()
        await trio.sleep(20)
        assert w.runner.state == "Reconnected"
        assert len(handlers.seen_s) == 2
    assert "count as given up" not in caplog.text


async def test_samples_of_a_run_that_was_not_taken_do_not_count_as_delivered(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """100 in 30 s are answered with Success and thrown away. Those of the next run count."""
    async with world() as w:
        await w.settled()
        refused = m.ProtocolErrorMessage(protocol_msg="Message deserialization failed")
        w.aggregator.on_message = Handlers(em.RunStartedMsg, lambda _: refused)
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(0.05)
        before = w.runner.statistics().outbox
        assert before.set_aside == 1
        await trio.sleep(30)
        after = w.runner.statistics().outbox
        # The only delivery is the warning that tells about it.
        assert (after.delivered - before.delivered, after.set_aside) == (1, 101)
        assert caplog.text.count("its samples count as given up") == 1
        w.runner.post(stopped("run-1"))
        await trio.sleep(30)
        after = w.runner.statistics().outbox
        # The warning, the end of the run, and 100 samples.
        assert (after.delivered - before.delivered, after.set_aside) == (1 + 1 + 100, 101)


# What cannot get through


async def test_an_aggregator_that_needs_12_s_to_archive_a_run_has_it_twice(
    autojump_clock: Clock,
) -> None:
    """The first try has 10 s, the second 20 s, and what follows it flows."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(1)
        handlers = Handlers(em.RunStoppedMsg, takes_s=12)
        w.aggregator.on_message = handlers
        w.runner.post(stopped("run-1", "archive"))
        await trio.sleep(60)
        assert len(handlers.seen_s) == 2
        assert w.aggregator.recent_runs[0].archive == "archive"
        assert w.runner.statistics().outbox.waiting < 20
        assert newest_age(w) < 1


async def test_an_end_of_a_run_that_is_cut_on_the_way_goes_without_its_archive(
    autojump_clock: Clock,
) -> None:
    """Three links end at the end of the run. Then it goes without the archive, and that is told."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(1)

        def cut(message: em.EngineMessage) -> None:
            if getattr(message, "archive", None) is not None:
                w.aggregator.drop()

        handlers = Handlers(em.RunStoppedMsg, cut)
        w.aggregator.on_message = handlers
        w.runner.post(stopped("run-1", "archive", lines=2))
        await trio.sleep(60)
        assert len(handlers.seen_s) == 4
        (run,) = [r for r in w.aggregator.recent_runs if r.archive is None]
        assert len(run.run_log.lines) == 2
        assert w.runner.statistics().outbox.archives_left_out == 1
        assert newest_age(w) < 1


async def test_a_sample_that_ends_every_link_is_set_aside(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried eight times with growing pauses; then what follows it arrives."""
    async with world() as w:
        await w.settled()

        def cut(message: em.EngineMessage) -> None:
            if message.tags[0].value == 5:  # type: ignore[attr-defined]
                w.aggregator.drop()

        w.aggregator.on_message = Handlers(em.TagsUpdatedMsg, cut)
        await trio.sleep(600)
        statistics = w.runner.statistics()
        assert statistics.outbox.set_aside == 1
        assert statistics.links < 15
        assert statistics.outbox.waiting < 20
        assert sorted({*range(1, w.unit.count - 2)} - set(w.counts())) == [5]
    assert "links ended while it was sent" in caplog.text


@pytest.mark.parametrize("kind", [em.UodInfoMsg, em.RunStartedMsg])
async def test_no_sample_counts_before_the_unit_and_its_run_are_known(
    kind: type[em.EngineMessage], autojump_clock: Clock
) -> None:
    """The introduction fails for 20 s, and is told again at 1, 3, 7, 15 and 31 s."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(1)
        w.aggregator.drop()
        await w.until("Failed")
        await trio.sleep(0.5)
        dialled = 0.6875 - 0.5
        began = trio.current_time() + dialled
        handlers = Handlers(kind, lambda _: FAILED if trio.current_time() < began + 20 else None)
        w.aggregator.on_message = handlers
        arrived = len(w.counts())
        delivered = w.runner.statistics().outbox.delivered
        await trio.sleep(dialled + 30)
        assert [s - began for s in handlers.seen_s] == pytest.approx([0, 1, 3, 7, 15])
        assert len(w.counts()) == arrived
        assert w.runner.statistics().outbox.delivered == delivered
        await trio.sleep(10)
        assert w.counts() == list(range(1, w.unit.count + 1))


async def test_a_sample_that_has_failed_goes_alone(autojump_clock: Clock) -> None:
    """No newer one passes it while it is tried at 1 and 3 s, or it would not be stored."""
    async with world() as w:
        await w.settled()
        failures = iter([FAILED] * 2)
        tried: list[int] = []

        def fail(message: em.EngineMessage) -> m.MessageBase | None:
            assert isinstance(message, em.TagsUpdatedMsg)
            value = int(str(message.tags[0].value))
            tried.append(value)
            return next(failures, None) if value == 5 else None

        w.aggregator.on_message = Handlers(em.TagsUpdatedMsg, fail)
        await trio.sleep(10)
        first = tried.index(5)
        assert tried[first : first + 4] == [5, 5, 5, 6]
        assert w.counts() == list(range(1, w.counts()[-1] + 1))


async def test_a_unit_that_cannot_be_told_is_tried_with_pauses(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A description over 16 MiB is logged once and holds back the samples; nothing spins."""

    class Big(Unit):
        def create_uod_info(self) -> em.UodInfoMsg:
            return evolve(super().create_uod_info(), hardware_str="x" * 17 * 1024 * 1024)

    async with world(unit=Big()) as w:
        await trio.sleep(100)
        assert w.runner.state == "Started"
        assert w.counts() == []
    assert caplog.text.count("it is left out") == 1


async def test_a_minute_of_failing_handlers_loses_nothing(autojump_clock: Clock) -> None:
    """An aggregator whose database is locked gets everything later, and nothing is set aside."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(1)
        handlers = Handlers(em.EngineMessage, lambda _: FAILED)
        w.aggregator.on_message = handlers
        for number in range(5):
            w.runner.on_notify_command(str(number))
        w.runner.post(stopped("run-1", "archive"))
        await trio.sleep(60)
        w.aggregator.on_message = None
        await trio.sleep(120.05)  # the last sample has its answer
        assert w.runner.statistics().outbox.set_aside == 0
        told = w.aggregator.engine().notifications
        assert sorted(str(n.notification.body) for n in told) == list("01234")
        assert w.aggregator.recent_runs[-1].archive == "archive"
        assert sorted(w.counts()) == list(range(1, w.unit.count + 1))


async def test_an_end_of_a_run_that_is_far_too_big_arrives_in_some_form(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The archive and the values in the run log, over 16 MiB, are left out; the lines stay."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        w.runner.post(stopped("run-1", "x" * 1000, lines=2500))
        await trio.sleep(5)
        (run,) = w.aggregator.recent_runs
        assert run.archive is None
        assert len(run.run_log.lines) == 2500
        assert run.run_log.lines[0].start_values == []
    assert "it goes out without its archive" in caplog.text
    assert "it goes out without its values of the run log" in caplog.text


async def test_what_stands_after_a_message_that_is_too_big_goes_out_at_once(
    autojump_clock: Clock,
) -> None:
    """It is set aside in a moment, and the next goes out in the same moment, before any sample."""
    outbox = MemoryOutbox()
    async with world(run=False, outbox=outbox) as w:
        for text in ("x" * 17 * 1024 * 1024, "small"):
            outbox.put(w.unit.create_wpn_notify_command_msg(text))
        began = trio.current_time()
        await w.nursery.start(w.runner.run)
        await w.settled()
        assert trio.current_time() == began
        told = w.aggregator.engine().notifications
        assert [str(told.notification.body) for told in told] == ["small"]
        assert outbox.statistics().set_aside == 1


# Links


async def test_links_that_live_for_less_than_a_pause_do_not_hold_a_message_back(
    autojump_clock: Clock,
) -> None:
    """RunStarted fails seven times, and its next try is due 60 s later; links live for 55 s."""
    async with world() as w:
        await w.settled()
        began = trio.current_time()
        handlers = Handlers(
            em.RunStartedMsg, lambda _: FAILED if trio.current_time() < began + 64 else None
        )
        w.aggregator.on_message = handlers
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        await trio.sleep(65)
        for _ in range(4):
            w.aggregator.drop()
            await trio.sleep(55)
        # The eighth try, 63 + 60 s after the first, is taken. From then on each link is told once.
        tries_s = [0, 1, 3, 7, 15, 31, 63, 123]
        assert [s - began for s in handlers.seen_s[:8]] == pytest.approx(tries_s, abs=1)
        assert w.runner.statistics().outbox.waiting < 20


async def test_links_that_break_at_once_are_dialled_less_and_less_often(
    autojump_clock: Clock,
) -> None:
    """Each breaks with its first sample. In 10 min it is dialled about every 5 s, not 600 times."""
    async with world(timing=Timing(steady_s=0.3)) as w:
        w.aggregator.on_message = Handlers(em.TagsUpdatedMsg, lambda _: w.aggregator.drop())
        await trio.sleep(600)
        # The waits are 0.6, 1.1, 2.1 and 4.1 s, and then 5.125 s on average.
        assert w.runner.statistics().dials <= 600 / 5 + 4
        w.aggregator.on_message = None
        await trio.sleep(130)  # the message that was taken for the cause still has its pauses
        assert w.counts()[-1] >= w.unit.count - 1


async def test_links_that_deliver_nothing_are_dialled_less_and_less_often(
    autojump_clock: Clock,
) -> None:
    """Each takes only the introduction and breaks after 12 s: in the end one in 12 + 6.875 s.

    That is 600 / 18.875 = 32 in 10 min. With the first wait each time it would be one in 12.7 s.
    """
    async with world(timing=Timing(steady_s=0.3)) as w:
        w.aggregator.on_message = Handlers(em.TagsUpdatedMsg, lambda _: FAILED)
        await w.settled()
        with trio.move_on_after(600), w.runner.state_changes() as changes:
            w.aggregator.drop()
            async for change in changes:
                if change.after == "CatchingUp":
                    await trio.sleep(12)
                    w.aggregator.drop()
        assert w.runner.statistics().dials <= 32 + 3  # the first waits are shorter


async def test_a_link_that_has_lived_and_delivered_is_followed_by_a_short_wait(
    autojump_clock: Clock,
) -> None:
    """Though a sample is always under way, over 400 ms there and back: 0.6875 s each time.

    A dial takes five times as long as there and back, 2 s.
    """
    async with world() as w:
        w.network.latency_s = 0.2
        await w.until("Connected")
        for _ in range(4):
            await trio.sleep(20)
            assert w.runner.statistics().outbox.waiting
            w.aggregator.drop()
            await w.until("Failed")
            await w.until("Reconnected")
        times = dict[str, list[float]]()
        for at, state in w.changes:
            times.setdefault(state, []).append(at)
        waits = [b - a for a, b in zip(times["Disconnected"], times["Reconnecting"], strict=True)]
        assert waits == pytest.approx([0.6875 + 5 * 0.4] * 4)


async def test_a_dial_that_has_stood_in_line_makes_the_next_waits_longer(
    autojump_clock: Clock,
) -> None:
    """The first took no time, the next takes 2 s over 400 ms there and back: over 1 s longer.

    So the next first wait is the middle of what is left of one of up to 4 s, 1.375 s.
    """
    async with world() as w:
        await w.settled()
        w.network.latency_s = 0.2
        for _ in range(2):
            await trio.sleep(20)
            w.aggregator.drop()
            await w.until("Failed")
            await w.until("Reconnected")
        times = dict[str, list[float]]()
        for at, state in w.changes:
            times.setdefault(state, []).append(at)
        waits = [b - a for a, b in zip(times["Disconnected"], times["Reconnecting"], strict=True)]
        assert waits == pytest.approx([0.6875 + 5 * 0.4, 1.375 + 5 * 0.4])
