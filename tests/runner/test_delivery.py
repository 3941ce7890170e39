"""What reaches the aggregator, in which order, and how often."""

import logging
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from attrs import evolve, field, frozen

from tests.helpers.unit import EPOCH, Named, Unit, World, world
from tests.test_outbox import LINE
from trio_runner import MemoryOutbox, RunStateChange, Timing
from trio_runner._errors import LinkLost
from trio_runner._publish import Doorbell
from trio_runner._sender import Sender
from trio_runner.net import Answered
from trio_runner.protocol import OPENPECTUS_VERSION
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

Clock = trio.testing.MockClock


def kinds(w: World) -> list[str]:
    """Return the names of the events received; of a notification, its topic."""
    names = []
    for received in w.aggregator.engine().received:
        message = received.message
        if isinstance(message, em.WebPushNotificationMsg):
            names.append(str(message.topic.value))
        elif isinstance(message, em.RunStartedMsg | em.RunStoppedMsg | em.ErrorLogMsg):
            names.append(type(message).__name__)
    return names


async def test_each_event_method_sends_its_messages_in_order(autojump_clock: Clock) -> None:
    """Start and stop of a run have a notification each; else only what people must hear has one."""
    async with world() as w:
        await w.until("Connected")
        listener = w.unit.listeners[0]
        listener.on_start("run-1")
        listener.on_runstate_change(RunStateChange.PAUSE)
        listener.on_runstate_change(RunStateChange.UNPAUSE)
        listener.on_block_start(Named(name="B1"))
        listener.on_notify_command("hello")
        listener.on_scope_activate(Named(scope_type="Watch", argument="Flow > 1"))
        listener.on_scope_activate(Named(scope_type="Alarm", argument="Flow > 2"))
        listener.on_method_error(ValueError("no"))
        listener.on_connection_status_change("Connected")
        listener.on_connection_status_change("Disconnected")
        listener.on_stop()
        await trio.sleep(0.05)
        assert kinds(w) == [
            "RunStartedMsg",
            "run_start",
            "run_pause",
            "block_start",
            "notification_cmd",
            "watch_triggered",
            "method_error",
            "network_errors",
            "RunStoppedMsg",
            "run_stop",
        ]
        (started,) = w.aggregator.messages(em.RunStartedMsg)
        assert started.started_tick == EPOCH  # the wall clock at the virtual time 0
        bodies = [n.notification.body for n in w.aggregator.messages(em.WebPushNotificationMsg)]
        assert bodies[2:5] == [
            'Block "B1" is now running.',
            "hello",
            "Watch condition triggered: Flow > 1",
        ]
        assert w.aggregator.recent_runs[0].run_id == "run-1"


async def test_a_stop_without_a_run_is_an_error_of_the_caller(autojump_clock: Clock) -> None:
    """Calling on_stop() while no run is on raises an error and sends nothing."""
    async with world() as w:
        with pytest.raises(RuntimeError, match="while no run is on"):
            w.runner.on_stop()
        assert w.runner.buffer_size == 0


async def test_a_run_event_is_a_barrier(autojump_clock: Clock) -> None:
    """It goes out when all before it is answered, and nothing follows until it is answered."""
    async with world() as w:
        await w.settled()
        unanswered: list[tuple[str, int]] = []

        async def note(message: em.EngineMessage) -> m.MessageBase | None:
            unanswered.append((type(message).__name__, w.runner.statistics().unanswered))
            await trio.sleep(0.01)
            return None

        for _ in range(10):  # the window of a new link grows with the answers
            w.runner.post(w.unit.create_tag_updates_snapshot_msg())
        await trio.testing.wait_all_tasks_blocked()
        w.aggregator.on_message = note
        for _ in range(3):
            w.runner.post(w.unit.create_tag_updates_snapshot_msg())
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        w.runner.post(w.unit.create_run_stopped_msg("run-1"))
        for _ in range(3):
            w.runner.post(w.unit.create_tag_updates_snapshot_msg())
        await trio.sleep(0.095)
        # Each event goes alone. Samples go together, after the events as well as before.
        samples, events = "TagsUpdatedMsg", ["RunStartedMsg", "RunStoppedMsg"]
        assert [kind for kind, _ in unanswered] == [samples] * 3 + events + [samples] * 3
        assert [beside for _, beside in unanswered[3:5]] == [1, 1]
        assert unanswered[0] == unanswered[5] == (samples, 3)


async def test_samples_stay_on_their_side_of_the_beginning_and_end_of_a_run(
    autojump_clock: Clock,
) -> None:
    """Every sample carries the run in which it was taken, and the aggregator refuses none."""
    async with world() as w:
        await trio.sleep(1)
        w.runner.on_start("run-1")
        await trio.sleep(1)
        async with w.aggregator.outage():
            await trio.sleep(3)
            w.runner.on_stop()
            await trio.sleep(3)
            w.runner.on_start("run-2")
            await trio.sleep(3)
        await w.until("Reconnected")
        await trio.sleep(1)
        w.runner.on_stop()
        await trio.sleep(1)
        refused = [r for r in w.aggregator.engine().refused if type(r.message) is em.TagsUpdatedMsg]
        assert refused == []
        assert w.counts() == list(range(1, w.unit.count + 1))
        runs = [t.run_id for t in w.aggregator.messages(em.TagsUpdatedMsg)]
        assert list(dict.fromkeys(runs)) == [None, "run-1", "run-2"]
        assert [run.run_id for run in w.aggregator.recent_runs] == ["run-1", "run-2"]


async def test_an_aggregator_that_was_killed_learns_of_the_run_again(autojump_clock: Clock) -> None:
    """RunStarted is repeated unchanged on a new link; the run goes on and is stored as a whole."""
    async with world() as w:
        await trio.sleep(1)
        w.runner.on_start("run-1")
        await trio.sleep(1)
        async with w.aggregator.outage(kill=True):
            await trio.sleep(2)
        await w.until("Reconnected")
        first, second = [
            r for r in w.aggregator.engine().received if isinstance(r.message, em.RunStartedMsg)
        ]
        assert first.message == second.message
        assert first.message.sequence_number == second.message.sequence_number
        assert w.aggregator.messages(em.RunStartedMsg)[0].started_tick == EPOCH + 1
        w.runner.on_stop()
        await trio.sleep(0.1)
        assert w.aggregator.recent_runs[-1].run_id == "run-1"
        assert w.counts() == list(range(1, w.unit.count + 1))


async def test_the_introduction_comes_first_and_history_before_live_values(
    autojump_clock: Clock,
) -> None:
    """A new link gets UodInfo, Method, RunStarted, the backlog, the states, then live values."""
    async with world() as w:
        await w.until("Connected")
        w.runner.on_start("run-1")
        await trio.sleep(0.5)
        async with w.aggregator.outage():
            await trio.sleep(1.2)
            w.runner.on_notify_command("while away")
        await w.until("Reconnected")
        await trio.sleep(0.3)
        link = w.aggregator.engine().connections[-1].number
        names = [
            type(r.message).__name__ for r in w.aggregator.engine().received if r.connection == link
        ]
        assert names == [
            "UodInfoMsg",
            "MethodMsg",
            "RunStartedMsg",
            "TagsUpdatedMsg",  # taken offline, 1 s after the last
            "WebPushNotificationMsg",
            "ControlStateMsg",
            "MethodStateMsg",
            "RunLogMsg",
            "TagsUpdatedMsg",  # the snapshot, within 0.3 s of the new link
        ]


async def test_states_are_sent_when_they_have_changed(autojump_clock: Clock) -> None:
    """In ten seconds of steady state an unchanged state is sent once, and a change within 0.3 s."""
    async with world() as w:
        await trio.sleep(10.05)
        assert len(w.aggregator.messages(em.ControlStateMsg)) == 1
        assert len(w.aggregator.messages(em.MethodMsg)) == 1
        w.unit.control = mdl.ControlState(is_running=True, is_holding=False, is_paused=False)
        await trio.sleep(0.3)
        assert len(w.aggregator.messages(em.ControlStateMsg)) == 2
        assert w.aggregator.engine().unit.control_state.is_running


async def test_a_queue_that_has_emptied_is_told(autojump_clock: Clock) -> None:
    """The page must not show a queued command that has gone."""
    line = _queued("Mark: A")
    async with world(unit=Unit(queued=[line])) as w:
        await trio.sleep(1)
        assert w.aggregator.engine().unit.queued_run_log.lines == [line]
        w.unit.queued.clear()
        await trio.sleep(0.35)
        assert w.aggregator.engine().unit.queued_run_log.lines == []


async def test_what_an_older_aggregator_cannot_read_is_not_told_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once on each link, however often it changes; the next aggregator may be newer."""
    tries: list[float] = []

    async def know_no_queue(message: em.EngineMessage) -> m.MessageBase | None:
        if isinstance(message, em.QueuedRunLogMsg):
            tries.append(trio.current_time())
            return m.ProtocolErrorMessage(protocol_msg="Message deserialization failed")
        return None

    aggregator = Aggregator(on_message=know_no_queue)
    async with world(aggregator=aggregator) as w:
        await trio.sleep(1)
        assert tries == []  # no command waits, so there is nothing to tell
        for number in range(10):
            w.unit.queued.append(_queued(f"Mark: {number}"))
            await trio.sleep(1)
        assert len(tries) == 1
        w.aggregator.kill()
        await w.until("Reconnected")
        await trio.sleep(5)
        assert len(tries) == 2
        assert w.aggregator.engine().unit.queued_run_log.lines == []
    assert sum("did not take QueuedRunLogMsg" in r.message for r in caplog.records) == 2


def _queued(command: str) -> mdl.RunLogLine:
    return evolve(LINE, id="QueuedCommand", command_name=command)


async def test_errors_of_the_engine_reach_the_error_log(autojump_clock: Clock) -> None:
    """What the engine logged is sent exactly once, whether or not there is a link."""
    async with world() as w:
        await w.until("Connected")
        async with w.aggregator.outage():
            w.unit.errors.append(mdl.ErrorLogEntry(message="pump", created_time=EPOCH, severity=40))
            await trio.sleep(2)
        await w.until("Reconnected")
        await trio.sleep(1)
        (errors,) = w.aggregator.messages(em.ErrorLogMsg)
        assert [entry.message for entry in errors.log.entries] == ["pump"]


async def test_an_engine_that_the_aggregator_does_not_know_registers_anew(
    autojump_clock: Clock,
) -> None:
    """The answer "No engine registered" ends the link; the message is delivered over the next."""
    async with world() as w:
        await w.until("Connected")
        answers = iter([m.ErrorMessage(message="No engine registered under id host_Unit")])

        async def answer(message: em.EngineMessage) -> m.MessageBase | None:
            return next(answers, None) if isinstance(message, em.RunStartedMsg) else None

        w.aggregator.on_message = answer
        w.runner.on_start("run-1")
        await w.until("Reconnected")
        # The answer comes at 0 s, and the first new dial at 0.6875 s.
        assert trio.current_time() == 0.6875
        assert len(w.aggregator.engine().registrations) == 2
        assert w.aggregator.engine().unit.run is not None


@frozen
class Paper:
    """A session that keeps what is sent over it, so that the test can answer."""

    engine_id: str = "host_Unit"
    bytes_sent: int = 0
    sent: list[bytes] = field(factory=list)
    answers: list[Answered] = field(factory=list)

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        self.sent.append(packed)
        self.answers.append(answered)

    async def aclose(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


async def test_nothing_follows_the_answer_that_ends_a_link(autojump_clock: Clock) -> None:
    """Nothing goes out between that answer and the end of the link. Seed 248 found this bug."""
    outbox, unit, paper = MemoryOutbox(), Unit(), Paper()
    outbox.put(unit.create_uod_info())
    sender = Sender(paper, outbox, Doorbell())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.drain)
        await trio.testing.wait_all_tasks_blocked()
        paper.answers[0](m.SuccessMessage())
        for _ in range(2):
            outbox.put(unit.create_tag_updates_snapshot_msg())
        await trio.testing.wait_all_tasks_blocked()
        assert len(paper.sent) == 2  # UodInfo and the first sample; the window begins at one.
        with pytest.raises(LinkLost):
            paper.answers[1](m.ErrorMessage(message="No engine registered under id host_Unit"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(paper.sent) == 2
        nursery.cancel_scope.cancel()


async def test_a_message_that_the_aggregator_fails_to_handle_is_tried_again(
    autojump_clock: Clock,
) -> None:
    """The pauses are 1, 2, 4 ... 60 s. After 15 min it is set aside."""
    failed = m.ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
    # The pauses before the 21st try: 1 + 2 + 4 + 8 + 16 + 32 + 14 * 60 = 903 s.
    tries_s = [0, 1, 3, 7, 15, 31, *range(63, 904, 60)]
    for failures in (3, 20, 21):
        async with world(aggregator=Aggregator()) as w:
            start = trio.current_time()
            await w.until("Connected")
            answers = iter([failed] * failures)
            seen: list[float] = []

            async def answer(
                message: em.EngineMessage,
                answers: Iterator[m.MessageBase] = answers,
                seen: list[float] = seen,
                start: float = start,
            ) -> m.MessageBase | None:
                if isinstance(message, em.RunStartedMsg):
                    seen.append(trio.current_time() - start)
                    return next(answers, None)
                return None

            w.aggregator.on_message = answer
            w.runner.on_start("run-1")
            await trio.sleep(1000)
            assert seen == pytest.approx(tries_s[: failures + 1])
            # With RunStarted, the samples of its run are given up, since the aggregator discards
            # them.
            assert (w.runner.statistics().outbox.set_aside > 0) == (failures == 21)
            assert (w.aggregator.engine().unit.run is not None) == (failures < 21)


@pytest.mark.parametrize("kind", [em.TagsUpdatedMsg, em.WebPushNotificationMsg])
async def test_what_fails_while_the_sender_is_idle_is_tried_again_in_time(
    kind: type[em.EngineMessage], autojump_clock: Clock
) -> None:
    """The pause is 1 s, though the next sample, which wakes the sender, may be 5 s away."""
    seen: list[float] = []
    failed = m.ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")

    async def answer(message: em.EngineMessage) -> m.MessageBase | None:
        if isinstance(message, kind):
            seen.append(trio.current_time())
            return failed if len(seen) == 1 else None
        return None

    async with world(timing=Timing(steady_s=5)) as w:
        await trio.sleep(6)
        w.aggregator.on_message = answer
        if kind is em.WebPushNotificationMsg:
            w.runner.on_notify_command("one")
        await trio.sleep(7)
        assert seen[1] - seen[0] == pytest.approx(1)


async def test_a_message_that_is_never_taken_is_set_aside_and_the_line_goes_on(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once and counted, and what follows it arrives."""
    poison = m.ProtocolErrorMessage(protocol_msg="Message deserialization failed")

    async def answer(message: em.EngineMessage) -> m.MessageBase | None:
        return poison if "poison" in str(message) else None

    async with world() as w:
        await w.until("Connected")
        w.aggregator.on_message = answer
        w.runner.on_notify_command("poison")
        w.runner.on_notify_command("good")
        await trio.sleep(0.05)
        told = w.aggregator.engine().notifications
        assert [n.notification.body for n in told] == ["good"]
        assert w.runner.statistics().outbox.set_aside == 1
    assert sum("is set aside" in record.message for record in caplog.records) == 1


async def test_a_failure_is_logged_once_not_at_every_dial(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Minutes without an aggregator leave one warning, and the statistics give the reason."""
    async with world(up=False) as w:
        await trio.sleep(600)
        warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == 1
        failure = w.runner.statistics().last_failure
        promise = "The runner goes on trying and will say more within 10 min."
        assert warnings[0].message == f"{failure} {promise}"
        assert "Is the aggregator running there?" in str(failure)


async def test_what_to_install_is_said_each_hour_not_each_dial(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An aggregator of another version is waited for, until it is of ours or lets us in."""
    async with world(aggregator=Aggregator(version="0.1.9999")) as w:
        await trio.sleep(10_795)  # 5 s short of 3 h
        # One dial every 6.875 s, the middle of 3.75 to 10 s (MAX_RECONNECT_WAIT_SECONDS):
        # 10,795 / 6.875 = 1570.2.
        assert w.runner.statistics().dials == 1571
        told = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(told) == 3  # at 0, 1 and 2 h
        for record in told:
            assert "wants engines of version 0.1.9999" in record.message
            assert "Install that version" in record.message
        w.aggregator.version = OPENPECTUS_VERSION
        with trio.fail_after(6.875):
            await w.until("Reconnected")


async def test_a_command_while_catching_up_is_answered_at_once(autojump_clock: Clock) -> None:
    """While a backlog of 300 takes 15 s, a command has its answer within half a second."""
    async with world() as w:
        await w.settled()
        async with w.aggregator.outage():
            for _ in range(300):
                w.runner.post(w.unit.create_tag_updates_snapshot_msg())
            await trio.sleep(1)
        w.aggregator.handling_time_s = 0.05
        await w.until("CatchingUp")
        await trio.sleep(5)
        asked = trio.current_time()
        command = am.ExecuteControlCommandMsg(name="Pause")
        answer = await w.aggregator.call("host_Unit", command)
        assert answer == m.SuccessMessage()
        # Work of 0.2 s waits before it, and the message under way takes 0.05 s.
        assert trio.current_time() - asked <= 0.25 + 1e-6
        assert w.unit.commands == [("control", "Pause")]
        assert w.runner.state == "CatchingUp"


async def test_a_message_over_the_aggregators_limit_does_not_stop_the_line(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An end of a run goes without a huge archive, other huge messages are left out, as is told."""
    async with world() as w:
        await w.settled()
        huge = "x" * (16 * 1024 * 1024)
        w.runner.on_start("run-1")
        w.runner.on_notify_command(huge)
        stopped = w.unit.create_run_stopped_msg("run-1")
        w.runner.post(evolve(stopped, archive=huge, archive_filename="run-1.csv"))
        w.unit.run_log.append(evolve(LINE, command_name=huge))
        w.runner.post(w.unit.create_runlog_msg("run-1"))
        await trio.sleep(1)
        statistics = w.runner.statistics().outbox
        assert (statistics.archives_left_out, statistics.set_aside, len(w.changes)) == (1, 1, 1)
        assert w.aggregator.recent_runs[0].archive is None
        assert w.aggregator.messages(em.RunLogMsg) == []
        w.unit.run_log.clear()
    errors = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 3
    assert all("too big" in error or "16 MiB" in error for error in errors)


async def test_a_slow_aggregator_hears_of_states_and_is_caught_up_with(
    autojump_clock: Clock,
) -> None:
    """Even with something always under way, states are sent and CatchingUp ends."""
    async with world() as w:
        await w.settled()
        w.aggregator.handling_time_s = 0.35  # a sample comes every 0.3 s
        w.unit.control = mdl.ControlState(is_running=True, is_holding=False, is_paused=False)
        await trio.sleep(5)
        assert w.aggregator.engine().unit.control_state.is_running
        async with w.aggregator.outage():
            await trio.sleep(5)
        await w.until("CatchingUp")
        began, waiting = trio.current_time(), w.runner.buffer_size
        await w.until("Reconnected")
        assert trio.current_time() - began <= (waiting + 1) * 0.35


async def test_an_event_gets_through_whatever_happens_to_its_links(autojump_clock: Clock) -> None:
    """Broken links and failing handlers delay it, but do not stop it."""
    failed = m.ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
    async with world() as w:
        await w.settled()
        cuts, failures = iter([True] * 4), iter([failed] * 2)

        async def hinder(message: em.EngineMessage) -> m.MessageBase | None:
            if not isinstance(message, em.WebPushNotificationMsg):
                return None
            if next(cuts, False):
                w.aggregator.drop()
                await trio.lowlevel.checkpoint()
            return next(failures, None)

        w.aggregator.on_message = hinder
        w.runner.on_notify_command("hello")
        # The pauses before it are 0, 2, 4 and 8 s in the links after a cut, and 16 and 32 s after a
        # failure. Before each link there is a wait of 10 s at most.
        await trio.sleep(0 + 2 + 4 + 8 + 16 + 32 + 4 * 10)
        assert [n.notification.body for n in w.aggregator.engine().notifications] == ["hello"]
        assert w.runner.statistics().outbox.set_aside == 0


async def test_posted_messages_belong_to_the_run_that_is_on(autojump_clock: Clock) -> None:
    """Posted tags are stamped with the run; after a posted RunStarted samples carry the new run."""
    async with world() as w:
        await w.settled()
        w.runner.post(w.unit.create_run_started_msg("run-1", EPOCH))
        w.runner.post(w.unit.create_tag_updates_snapshot_msg())
        await trio.sleep(1)
        assert w.runner.statistics().run_id == "run-1"
        w.runner.post(w.unit.create_run_stopped_msg("run-1"))
        await trio.sleep(1)
        assert w.runner.statistics().run_id is None
        refused = [r for r in w.aggregator.engine().refused if type(r.message) is em.TagsUpdatedMsg]
        assert refused == []


async def test_a_failure_after_a_healthy_link_is_news_again(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One outage is told once though the link comes and goes, and again after minutes of health."""
    async with world() as w:
        for up_s in (5, 5, 60 + 10, 5):  # 10 s of them pass until the link is back
            await trio.sleep(up_s)
            w.aggregator.drop()
            await w.until("Reconnected")
        warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        # The first warning, and the one after more than 60 s.
        assert warnings == ["The connection to the aggregator broke off."] * 2


async def test_samples_flow_after_an_event_although_states_are_always_under_way(
    autojump_clock: Clock,
) -> None:
    """The barrier ends with the answer to the event, even while other messages are under way."""
    async with world() as w:
        await w.settled()
        w.aggregator.handling_time_s = 0.35  # a state changes every 0.3 s

        def changing() -> em.MethodMsg:
            method = mdl.Method(version=w.unit.count, lines=w.unit.method.lines)
            return em.MethodMsg(method=method)

        w.unit.create_method_msg = changing  # type: ignore[method-assign]
        w.runner.on_notify_command("a barrier")
        await trio.sleep(10)
        # 28 messages are handled in 10 s, of which at least every other one is a sample.
        assert len(w.counts()) >= 10


async def test_a_run_whose_end_is_set_aside_is_not_begun_again(autojump_clock: Clock) -> None:
    """An aggregator that never takes RunStopped does not hear of that run on the next link."""

    async def refuse(message: em.EngineMessage) -> m.MessageBase | None:
        if isinstance(message, em.RunStoppedMsg):
            return m.ProtocolErrorMessage(protocol_msg="Message deserialization failed")
        return None

    async with world(aggregator=Aggregator(on_message=refuse)) as w:
        await w.until("Connected")
        w.runner.on_start("run-1")
        w.runner.on_stop()
        await trio.sleep(1)
        w.aggregator.kill()
        await w.until("Reconnected")
        assert [message.run_id for message in w.aggregator.messages(em.RunStartedMsg)] == ["run-1"]


async def test_the_open_run_is_told_again_until_it_is_taken(autojump_clock: Clock) -> None:
    """A killed aggregator hears of the run before its tags, even if its handler fails at first."""
    failures = iter([None, True, True])  # it fails the first time, and twice on the next link

    async def fail(message: em.EngineMessage) -> m.MessageBase | None:
        if isinstance(message, em.RunStartedMsg) and next(failures, None):
            return m.ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
        return None

    async with world(aggregator=Aggregator(on_message=fail)) as w:
        await w.until("Connected")
        w.runner.on_start("run-1")
        await trio.sleep(1)
        w.aggregator.kill()
        await w.until("Reconnected")
        await trio.sleep(1)
        refused = [item.refused for item in w.aggregator.engine().refused]
        assert refused == ["answered by on_message"] * 2


async def test_a_bug_is_told_though_the_link_is_lost_in_the_last_flush(
    autojump_clock: Clock,
) -> None:
    """A callback raises, and the flush waits for a mute aggregator that goes: the bug is raised."""
    aggregator = Aggregator(muted=False)

    async def fail() -> None:
        aggregator.muted = True
        w.runner.on_notify_command("never answered")
        raise ValueError("a bug")

    with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with world(aggregator=aggregator, run=False) as w:
            w.runner.first_steady_state_callback = fail
            w.nursery.start_soon(w.runner.run)
            await w.until("Stopped")
            await trio.sleep(1)
            aggregator.drop()
            await trio.sleep(1)


async def test_nothing_goes_out_if_the_unit_could_not_be_described(
    autojump_clock: Clock,
) -> None:
    """UodInfo could not be made, so whatever the last flush sent would be thrown away."""

    class Undescribed(Unit):
        def create_uod_info(self) -> em.UodInfoMsg:
            raise ValueError("a bug")

    async with world(unit=Undescribed()) as w:
        w.runner.on_notify_command("one")
        await trio.sleep(1.5)
        await w.runner.shutdown()
        assert trio.current_time() == 1.5
    assert w.aggregator.messages(em.EngineMessage) == []
    assert w.runner.statistics().outbox.delivered == 0
