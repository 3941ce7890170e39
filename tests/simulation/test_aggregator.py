"""The rules of the aggregator stand-in, one message at a time, without I/O."""

from typing import Any

import attrs
import pytest

from tests.helpers.recorded import CONVERSATION, MESSAGES
from trio_runner.protocol import (
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    SuccessMessage,
    decode,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.stand_ins._aggregator import (
    HANDLED,
    AggregatorRules,
    engine_id_of,
)
from trio_runner.simulation.stand_ins._records import (
    Connection,
    EngineRecord,
    LoggedError,
    Sample,
)

E1 = "vm_DemoUod"


def recorded(conn: int, kind: str) -> Any:
    """Return the first message of a type that the recorded engine sent on a connection."""
    for row in CONVERSATION:
        if row["conn"] != conn or row["from"] != "engine":
            continue
        body = row.get("body") or ((row.get("text") or {}).get("request") or {}).get(
            "arguments", {}
        ).get("message_json")
        if body and body["_type"] == kind:
            return decode(body)
    raise LookupError(kind)


REGISTER: em.RegisterEngineMsg = recorded(1, "RegisterEngineMsg")
UOD_INFO: em.UodInfoMsg = attrs.evolve(recorded(2, "UodInfoMsg"), data_log_interval_seconds=5.0)
STOPPED: em.RunStoppedMsg = recorded(6, "RunStoppedMsg")
METHOD: em.MethodMsg = recorded(6, "MethodMsg")
RUN_LOG: em.RunLogMsg = recorded(6, "RunLogMsg")


def started(run_id: str) -> em.RunStartedMsg:
    """Return the start of a run, at 100 s."""
    return em.RunStartedMsg(engine_id=E1, run_id=run_id, started_tick=100.0)


def stopped(run_id: str) -> em.RunStoppedMsg:
    """Return the end of a run, with the recorded last words."""
    return attrs.evolve(STOPPED, run_id=run_id)


def tags(run_id: str | None, tick: float, **values: float | str) -> em.TagsUpdatedMsg:
    """Return a sample of these tags, all with the same tick time (s)."""
    listed = [
        mdl.TagValue(name=name, tick_time=tick, value=value, value_unit=None)
        for name, value in values.items()
    ]
    return em.TagsUpdatedMsg(engine_id=E1, tags=listed, run_id=run_id)


class Session:
    """A ledger with one engine that has registered and said its id."""

    def __init__(self, ledger: AggregatorRules | None = None) -> None:
        self.ledger = ledger or AggregatorRules()
        self.reply = self.ledger.register(REGISTER, 0.0)
        self.connection = Connection(1, 0.0)
        self.let_in = self.ledger.connect(self.connection, E1)

    @property
    def record(self) -> EngineRecord:
        """Return the ledger's record of the engine."""
        return self.ledger.engine()

    def send(self, *messages: em.EngineMessage) -> str | None:
        """Send messages, all answered with Success; return why the last one was refused."""
        for message in messages:
            assert self.ledger.handle(message, self.connection, 0.0) == SuccessMessage()
        return self.record.received[-1].refused

    def plot(self, run_id: str, tag: str) -> list[tuple[float, object]]:
        """Return the stored samples of a tag."""
        return [(item.tick_time, item.value) for item in self.ledger.plot_log[run_id][tag]]


def test_a_registration_gives_the_percent_quoted_id() -> None:
    """The id is computer and unit, joined with an underscore and percent-quoted."""
    message = attrs.evolve(REGISTER, computer_name="a b/ø", uod_name="U:1")
    assert engine_id_of(message) == "a%20b%2F%C3%B8_U%3A1"


def test_the_recorded_registration_gets_the_recorded_answer() -> None:
    """The recorded registration gets the recorded answer."""
    recorded_reply = next(
        row["body"]
        for row in CONVERSATION
        if row["conn"] == 1 and row["from"] == "aggregator" and "body" in row
    )
    assert Session().reply == decode(recorded_reply)


@pytest.mark.parametrize(
    ("changes", "success", "secret_match", "version_match"),
    [
        ({"secret": "wrong"}, False, False, None),
        ({"engine_version": "0.0.1"}, False, True, False),
        ({"engine_version": "0.0.1", "ignore_version_error": True}, True, True, False),
        ({}, True, True, True),
    ],
)
def test_a_registration_is_refused_for_its_secret_or_its_version(
    changes: dict[str, Any],
    success: bool,
    secret_match: bool,
    version_match: bool | None,
) -> None:
    """A wrong secret hides all else; a wrong version is ignored if the engine asks for that."""
    ledger = AggregatorRules(secret="s")  # noqa: S106 - no secret
    message = attrs.evolve(REGISTER, **({"secret": "s"} | changes))
    reply = ledger.register(message, 0.0)
    assert (reply.success, reply.secret_match, reply.version_match) == (
        success,
        secret_match,
        version_match,
    )
    assert reply.aggregator_build_number == "0.1.1585"
    assert len(ledger.refused_registrations) == (not success)


def test_a_registration_is_refused_while_the_engine_is_connected() -> None:
    """A second registration under an id is refused, with neither match false."""
    session = Session()
    reply = session.ledger.register(REGISTER, 1.0)
    assert (reply.success, reply.secret_match, reply.version_match) == (False, True, None)
    session.ledger.disconnect(session.connection, 2.0)
    assert session.ledger.register(REGISTER, 3.0).success


@pytest.mark.parametrize("engine_id", [None, 3, E1])
def test_a_connection_is_refused_without_a_free_id(engine_id: object) -> None:
    """Null, values that are not strings, and ids that are connected are not let in."""
    session = Session()
    assert session.let_in
    assert not session.ledger.connect(Connection(2, 0.0), engine_id)


def test_a_message_before_the_engine_id_is_lost() -> None:
    """A message before the answer to get_engine_id_async is answered, but has no effect."""
    ledger = AggregatorRules()
    ledger.register(REGISTER, 0.0)
    assert ledger.handle(UOD_INFO, Connection(1, 0.0), 0.0) == SuccessMessage()
    assert ledger.engine().unit.uod_info is None
    assert ledger.engine().refused[0].refused == "sent before the engine had said its id"


def test_a_message_of_an_unregistered_engine_gets_an_error() -> None:
    """An engine that is not registered gets an Error that says so."""
    session = Session()
    message = attrs.evolve(UOD_INFO, engine_id="other")
    answer = session.ledger.handle(message, session.connection, 0.0)
    assert answer == ErrorMessage(message="No engine registered under id other")


@pytest.mark.parametrize(
    "message",
    [
        SuccessMessage(),
        REGISTER,
        em.PingMsg(engine_id=E1),
        em.TagsBufferedMsg(engine_id=E1, tick_time=1.0),
        attrs.evolve(UOD_INFO, engine_id=""),
    ],
    ids=["no engine message", "registration", "ping", "buffered tags", "no engine id"],
)
def test_a_message_without_a_handler_gets_a_protocol_error(message: MessageBase) -> None:
    """A message without a handler is answered with ProtocolError."""
    session = Session()
    answer = session.ledger.handle(message, session.connection, 0.0)
    assert isinstance(answer, ProtocolErrorMessage)


def test_an_empty_method_gets_an_error() -> None:
    """A method must have a line."""
    session = Session()
    empty = em.MethodMsg(engine_id=E1, method=mdl.Method(version=0, lines=[]))
    answer = session.ledger.handle(empty, session.connection, 0.0)
    assert type(answer) is ErrorMessage
    assert session.record.refused[0].message == empty


def test_state_messages_are_kept() -> None:
    """The latest UodInfo, method, control state, method state and queued run log are kept."""
    session = Session()
    control = recorded(2, "ControlStateMsg")
    queued = recorded(2, "QueuedRunLogMsg")
    state = recorded(6, "MethodStateMsg")
    assert session.send(UOD_INFO, METHOD, control, state, queued) is None
    unit = session.record.unit
    assert unit.uod_info == UOD_INFO
    assert unit.method.lines == METHOD.method.lines
    assert unit.control_state == control.control_state
    assert unit.method_state == state.method_state
    assert unit.queued_run_log == queued.runlog


def test_a_notification_that_is_sent_twice_counts_twice() -> None:
    """The aggregator does not recognise repeats."""
    session = Session()
    note = recorded(2, "WebPushNotificationMsg")
    session.send(note, note)
    assert session.record.notifications == [note, note]


def error_log(*entries: tuple[str, float]) -> em.ErrorLogMsg:
    """Return an error log with these texts at these times (s)."""
    listed = [mdl.ErrorLogEntry(message=text, created_time=at, severity=40) for text, at in entries]
    return em.ErrorLogMsg(engine_id=E1, log=mdl.ErrorLog(entries=listed))


def test_an_entry_that_is_logged_several_times_in_a_row_is_counted() -> None:
    """Only newer ones count: a repeat of one entry is recognised, a repeat of several is not."""
    session = Session()
    session.send(error_log(("a", 1.0)), error_log(("a", 1.0)), error_log(("a", 3.0), ("a", 2.0)))
    assert session.record.unit.error_log == [LoggedError("a", 3.0, 40, 2)]
    session.send(error_log(("b", 4.0), ("a", 5.0)), error_log(("b", 4.0), ("a", 5.0)))
    told = [(entry.message, entry.occurrences) for entry in session.record.unit.error_log]
    assert told == [("a", 2), ("b", 1), ("a", 1), ("b", 1), ("a", 1)]


def test_tags_without_a_run_id_are_refused_in_a_run() -> None:
    """They are answered with Success and change nothing."""
    session = Session()
    refused = session.send(UOD_INFO, started("A"), tags(None, 101.0, FT01=1.0))
    assert refused == "tags without run id, but run A is active"
    assert session.record.unit.tags == {}


def test_tags_with_a_run_id_are_refused_outside_a_run() -> None:
    """They are answered with Success and change nothing."""
    session = Session()
    assert session.send(UOD_INFO, tags(None, 100.0, FT01=1.0)) is None
    assert session.send(tags("A", 101.0, FT01=2.0)) == "tags of run A, but no run is active"
    assert session.record.unit.tags["FT01"].value == 1.0
    assert session.ledger.plot_log == {}


def test_a_sample_is_stored_if_it_is_newer_by_more_than_the_interval() -> None:
    """At 5 s, the first is stored, then the first that is more than 5 s later, and none older."""
    session = Session()
    session.send(UOD_INFO, started("A"))
    # Stored: 100 (first), 105.5 (5.5 s later). Not: 105 (5 s is not more than 5), 104 (older).
    for tick in (100.0, 105.0, 105.5, 104.0, 110.5):
        assert session.send(tags("A", tick, FT01=tick)) is None
    assert session.plot("A", "FT01") == [(100.0, 100.0), (105.5, 105.5)]
    assert session.ledger.plot_log["A"]["FT01"][0] == Sample(100.0, 100.0)


def test_a_sample_stores_all_that_changed_since_the_last() -> None:
    """Tags that changed between two stored samples are stored with the time of the newest."""
    session = Session()
    session.send(UOD_INFO, started("A"), tags("A", 100.0, FT01=1.0, FT02=1.0))
    session.send(tags("A", 102.0, FT02=2.0), tags("A", 106.0, FT01=3.0))
    assert session.plot("A", "FT01") == [(100.0, 1.0), (106.0, 3.0)]
    assert session.plot("A", "FT02") == [(100.0, 1.0), (106.0, 2.0)]


def test_tags_that_the_unit_does_not_plot_are_not_stored() -> None:
    """Readings and plotted tags are stored; of other tags only the current value is kept."""
    session = Session()
    session.send(UOD_INFO, started("A"), tags("A", 100.0, Unheard=1.0))
    assert "Unheard" not in session.ledger.plot_log["A"]
    assert session.record.unit.tags["Unheard"].value == 1.0


def test_the_empty_value_after_a_mark_is_ignored() -> None:
    """The empty value that follows a mark is ignored."""
    session = Session()
    session.send(tags(None, 100.0, Mark="here"), tags(None, 101.0, Mark=""))
    assert session.record.unit.tags["Mark"].value == "here"


def test_no_sample_is_stored_before_uod_info() -> None:
    """A repeated RunStarted opens the plot, but the interval begins at a discarded sample."""
    session = Session()
    session.send(started("A"), tags("A", 100.0, FT01=1.0))
    assert session.ledger.plot_log == {"A": {}}
    session.send(UOD_INFO, started("A"), tags("A", 105.0, FT01=2.0), tags("A", 105.5, FT01=3.0))
    assert session.plot("A", "FT01") == [(105.5, 3.0)]


def test_the_first_sample_of_a_link_is_stored_before_uod_info() -> None:
    """The run's plot exists; after that sample the interval is infinite until UodInfo arrives."""
    session = Session()
    session.send(UOD_INFO, started("A"), tags("A", 100.0, FT01=1.0))
    session.ledger.disconnect(session.connection, 1.0)
    again = Session(session.ledger)
    again.send(tags("A", 101.0, FT01=2.0), tags("A", 107.0, FT01=3.0))
    assert again.plot("A", "FT01") == [(100.0, 1.0), (101.0, 2.0)]
    again.send(UOD_INFO, tags("A", 107.5, FT01=4.0))
    assert again.plot("A", "FT01")[2:] == [(107.5, 4.0)]


def test_a_sample_without_tags_fails_while_no_tag_is_known() -> None:
    """The handler raises as long as nothing of the run is stored; later it stores nothing."""
    session = Session()
    session.send(UOD_INFO, started("A"))
    answer = session.ledger.handle(tags("A", 100.0), session.connection, 0.0)
    assert answer == ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
    assert session.send(tags("A", 100.0, FT01=1.0), tags("A", 106.0)) is None
    assert session.plot("A", "FT01") == [(100.0, 1.0)]


def test_a_repeated_run_started_changes_nothing() -> None:
    """RunStarted for the current run neither archives it nor loses its samples."""
    session = Session()
    session.send(UOD_INFO, started("A"), tags("A", 100.0, FT01=1.0))
    assert session.send(started("A")) == "run A is active already"
    assert session.ledger.recent_runs == []
    assert session.plot("A", "FT01") == [(100.0, 1.0)]
    assert len(session.ledger.messages(em.RunStartedMsg)) == 2


def test_run_started_for_another_run_archives_the_current_one() -> None:
    """The current run ends without an archive, and the new one is active."""
    session = Session()
    assert session.send(UOD_INFO, started("A"), started("B")) is None
    assert [(run.run_id, run.archive) for run in session.ledger.recent_runs] == [("A", None)]
    assert session.record.unit.run is not None
    assert session.record.unit.run.run_id == "B"


def test_run_stopped_archives_the_run_with_what_it_brings() -> None:
    """The final run log, method state and archive come from RunStopped; the run state is reset."""
    session = Session()
    session.send(UOD_INFO, METHOD, started("A"), recorded(2, "ErrorLogMsg"))
    assert session.send(stopped("A")) is None
    (run,) = session.ledger.recent_runs
    assert (run.engine_id, run.run_id, run.started_tick) == (E1, "A", 100.0)
    assert (run.run_log, run.method_state) == (STOPPED.runlog, STOPPED.method_state)
    assert (run.archive, run.archive_filename) == (STOPPED.archive, STOPPED.archive_filename)
    told = recorded(2, "ErrorLogMsg").log.entries
    assert [entry.message for entry in run.error_log] == [entry.message for entry in told]
    assert session.record.unit.run is None
    assert session.record.unit.error_log == []


def test_run_stopped_archives_whatever_run_is_current() -> None:
    """RunStopped for another run ends the current one, with the run log that it had."""
    session = Session()
    session.send(UOD_INFO, started("B"))
    assert session.send(stopped("A")) == "end of run A has ended run B"
    assert [(run.run_id, run.run_log.lines) for run in session.ledger.recent_runs] == [("B", [])]


def test_run_stopped_without_a_run_stores_nothing() -> None:
    """There is nothing to archive."""
    session = Session()
    assert session.send(stopped("A")) == "end of run A, but no run is active"
    assert session.ledger.recent_runs == []


def test_a_run_log_of_another_run_is_ignored() -> None:
    """Only the run log of the active run counts."""
    session = Session()
    log_a = attrs.evolve(RUN_LOG, run_id="A")
    assert session.send(log_a) == "run log of run A, but no run is active"
    assert session.send(started("B"), log_a) == "run log of run A, but run B is active"
    assert session.send(attrs.evolve(RUN_LOG, run_id="B")) is None
    assert session.record.unit.run is not None
    assert session.record.unit.run.run_log == RUN_LOG.runlog


def test_a_queued_run_log_is_ignored_in_a_run() -> None:
    """It shows commands that wait for a run."""
    session = Session()
    queued = recorded(2, "QueuedRunLogMsg")
    assert session.send(queued, started("A"), queued) == "queued run log, but run A is active"
    assert session.record.unit.queued_run_log.lines == []


def test_a_recent_engine_is_restored_with_its_run() -> None:
    """An engine that comes back in mid-run finds its run, but nothing else is remembered."""
    session = Session()
    session.send(UOD_INFO, METHOD, started("A"))
    session.ledger.disconnect(session.connection, 1.0)
    again = Session(session.ledger)
    assert again.record.unit.run is not None
    assert (again.record.unit.run.run_id, again.record.unit.run.started_tick) == ("A", 100.0)
    assert again.record.unit.uod_info is None
    assert again.send(tags(None, 101.0, FT01=1.0)) == "tags without run id, but run A is active"


def test_a_recent_engine_without_a_run_is_restored_without_one() -> None:
    """A run that was stopped before the disconnect does not come back."""
    session = Session()
    session.send(started("A"), stopped("A"))
    session.ledger.disconnect(session.connection, 1.0)
    assert session.ledger.recent_engines == {E1: None}
    assert Session(session.ledger).record.unit.run is None


def test_a_killed_aggregator_remembers_no_run() -> None:
    """It refuses the run's samples and run log until RunStarted comes again, then stores more."""
    session = Session()
    session.send(UOD_INFO, started("A"), tags("A", 100.0, FT01=1.0))
    session.ledger.forget()
    session.ledger.disconnect(session.connection, 1.0)
    again = Session(session.ledger)
    assert again.send(UOD_INFO, tags("A", 106.0, FT01=2.0)) == "tags of run A, but no run is active"
    assert again.send(stopped("A")) == "end of run A, but no run is active"
    assert again.send(started("A"), tags("A", 107.0, FT01=3.0)) is None
    assert again.plot("A", "FT01") == [(100.0, 1.0), (107.0, 3.0)]
    assert again.ledger.recent_runs == []


def test_a_single_engine_is_found_without_its_id() -> None:
    """With one engine, the id need not be given; with none or several it must be."""
    with pytest.raises(LookupError, match="expected one engine, found \\[\\]"):
        AggregatorRules().engine()
    session = Session()
    session.ledger.register(attrs.evolve(REGISTER, computer_name="vm2"), 0.0)
    with pytest.raises(LookupError, match="vm2_DemoUod"):
        session.ledger.engine()
    assert session.ledger.engine(E1).engine_id == E1


def test_every_example_of_an_engine_message_is_answered() -> None:
    """Every engine message of the protocol's examples is answered as the real one answers it."""
    session = Session()
    for name, example in MESSAGES["engine"].items():
        message = decode({**example, "engine_id": E1} if "engine_id" in example else example)
        answer = session.ledger.handle(message, session.connection, 0.0)
        assert (answer == SuccessMessage()) == (type(message) in HANDLED), name
