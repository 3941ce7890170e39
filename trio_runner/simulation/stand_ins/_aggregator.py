"""What the aggregator stand-in does with messages, and what it keeps for a test to look at.

Nothing here does I/O or waits: a message goes in with the connection that it came by, and the
answer comes out. The rules are those of the real aggregator, including its odd ones:

- An engine that sends before it has said its engine id loses what it sends.
- Tags without a run id are refused during a run; tags with one are refused outside of a run.
- Samples are stored only during a run, if they are newer than the last stored one by more than the
  data-log interval, which is infinite before UodInfo. The first sample of a run that is new to the
  aggregator, or of one that it resumes on a new link, is stored at any time, if the run is plotted.
- Until a run's first sample is stored, a tag message of the run makes the handler raise if the
  aggregator knows no tag and the message brings none that counts.
- An error that repeats the last one, in text and severity, only adds to its count, if it is newer.
- RunStarted of the current run changes nothing in it; that of another run archives the current one.
- RunStopped archives whatever run is current.

Refused messages are answered with Success all the same; `Received.refused` says why they were
refused.
"""

import math
from urllib.parse import quote

import attrs
from attrs import define, field

from trio_runner.protocol import (
    OPENPECTUS_VERSION,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    SuccessMessage,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.stand_ins._records import (
    NO_LINES,
    Connection,
    EngineRecord,
    LoggedError,
    MessageT,
    Received,
    RecentRun,
    Registration,
    Run,
    Sample,
    Unit,
)
from trio_runner.simulation.stand_ins._sometimes import sometimes

HANDLED: tuple[type[em.EngineMessage], ...] = (
    em.UodInfoMsg,
    em.TagsUpdatedMsg,
    em.RunLogMsg,
    em.QueuedRunLogMsg,
    em.ControlStateMsg,
    em.MethodStateMsg,
    em.ErrorLogMsg,
    em.RunStartedMsg,
    em.RunStoppedMsg,
    em.MethodMsg,
    em.WebPushNotificationMsg,
)


@define(eq=False)
class AggregatorRules:
    """The aggregator's memory and its rules.

    `plot_log` maps a run id to the samples of each tag, oldest first. `recent_engines` maps an
    engine id to the run that it had when it was last disconnected. These two and `recent_runs`
    outlive the process.
    """

    version: str = OPENPECTUS_VERSION
    secret: str = ""
    engines: dict[str, EngineRecord] = field(factory=dict, init=False)
    plot_log: dict[str, dict[str, list[Sample]]] = field(factory=dict, init=False)
    recent_runs: list[RecentRun] = field(factory=list, init=False)
    recent_engines: dict[str, tuple[str, float] | None] = field(factory=dict, init=False)
    refused_registrations: list[Registration] = field(factory=list, init=False)

    def engine(self, engine_id: str | None = None) -> EngineRecord:
        """Return the record of an engine, or of the only one there is.

        Raises:
            LookupError: there is no such engine, or there are several and none was named.
        """
        if engine_id is not None:
            return self.engines[engine_id]
        if len(self.engines) != 1:
            raise LookupError(f"expected one engine, found {sorted(self.engines)}")
        return next(iter(self.engines.values()))

    def messages(self, kind: type[MessageT]) -> list[MessageT]:
        """Return all engines' messages of one type, including the refused ones."""
        return [message for record in self.engines.values() for message in record.messages(kind)]

    def is_connected(self, engine_id: str) -> bool:
        """Tell whether an engine has a connection and has said its id on it."""
        record = self.engines.get(engine_id)
        return record is not None and any(link.closed_s is None for link in record.connections)

    def register(self, message: em.RegisterEngineMsg, now: float) -> am.RegisterEngineReplyMsg:
        """Answer a registration; a granted one restores the run of a recent engine."""
        reply = self._judge(message)
        entry = Registration(message, reply, now)
        if not reply.success:
            self.refused_registrations.append(entry)
            return reply
        record = self._record(engine_id_of(message))
        record.registrations.append(entry)
        if not record.registered:
            record.registered = True
            recent = self.recent_engines.get(record.engine_id)
            record.unit = Unit(run=Run(*recent) if recent else None)
        return reply

    def connect(self, connection: Connection, engine_id: object) -> bool:
        """Note the id that an engine gave; return False if it cannot be let in under that id."""
        if not isinstance(engine_id, str) or self.is_connected(engine_id):
            return False
        connection.engine_id = engine_id
        self._record(engine_id).connections.append(connection)
        return True

    def disconnect(self, connection: Connection, now: float) -> None:
        """Note the end of a connection, and keep the engine's run for its next registration."""
        if connection.closed_s is not None:
            return
        connection.closed_s = now
        record = self.engines.get(connection.engine_id or "")
        if record is None or not record.registered:
            return
        self._keep(record)

    def keep(self) -> None:
        """Stop in order: keep every engine's run. All engines must register again."""
        for record in self.engines.values():
            if record.registered:
                self._keep(record)

    def forget(self) -> None:
        """Lose everything that only an orderly stop would have kept."""
        for record in self.engines.values():
            record.registered = False
            record.unit = Unit()

    def handle(self, message: MessageBase, connection: Connection, now: float) -> MessageBase:
        """Carry out a message and return the answer to it."""
        if not isinstance(message, em.EngineMessage):
            return ProtocolErrorMessage(protocol_msg="Message deserialization failed")
        refused: str | None
        answer = self._objection(message)
        if answer is not None:
            refused = f"answered with {type(answer).__name__}"
        elif connection.engine_id is None:
            refused = "sent before the engine had said its id"
        else:
            refused = self._carry_out(self.engines[message.engine_id], message)
        self.note(message, connection, now, refused)
        return answer or SuccessMessage()

    def note(
        self, message: em.EngineMessage, connection: Connection, now: float, refused: str | None
    ) -> None:
        """Add a message to the record of its engine."""
        received = Received(message, connection.number, now, refused)
        self._record(message.engine_id).received.append(received)

    def _keep(self, record: EngineRecord) -> None:
        record.registered = False
        run = record.unit.run
        self.recent_engines[record.engine_id] = (run.run_id, run.started_tick) if run else None

    def _record(self, engine_id: str) -> EngineRecord:
        return self.engines.setdefault(engine_id, EngineRecord(engine_id))

    def _judge(self, message: em.RegisterEngineMsg) -> am.RegisterEngineReplyMsg:
        """Return the answer to a registration; the real one makes the same checks in this order."""
        success, engine_id, version_match = False, None, None
        secret_match = message.secret == self.secret
        if secret_match:
            engine_id = engine_id_of(message)
            if not self.is_connected(engine_id):
                version_match = message.engine_version == self.version
                success = version_match or message.ignore_version_error
        return am.RegisterEngineReplyMsg(
            success=success,
            engine_id=engine_id,
            secret_match=secret_match,
            version_match=version_match,
            aggregator_build_number=self.version,
        )

    def _objection(self, message: em.EngineMessage) -> ErrorMessage | None:
        """Return the answer to a message that cannot be carried out, or None if it can be."""
        if message.engine_id == "":
            return ProtocolErrorMessage(protocol_msg="The engine_id was the empty string")
        if not isinstance(message, HANDLED):
            return ProtocolErrorMessage(protocol_msg="Dispatch failed. No handler registered.")
        record = self.engines.get(message.engine_id)
        if record is None or not record.registered:
            return ErrorMessage(message=f"No engine registered under id {message.engine_id}")
        if isinstance(message, em.MethodMsg) and not message.method.lines:
            return ErrorMessage(message="Invalid method: it must have at least one line")
        if isinstance(message, em.TagsUpdatedMsg) and _finds_nothing(record.unit, message):
            return ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
        return None

    def _carry_out(self, record: EngineRecord, message: em.EngineMessage) -> str | None:
        """Carry out a message; return why it has no effect, or None if it has one."""
        unit = record.unit
        match message:
            case em.UodInfoMsg():
                unit.uod_info = message
            case em.MethodMsg():
                unit.method = attrs.evolve(unit.method, lines=message.method.lines)
            case em.ControlStateMsg():
                unit.control_state = message.control_state
            case em.MethodStateMsg():
                unit.method_state = message.method_state
            case em.ErrorLogMsg():
                _log_errors(unit.error_log, message.log.entries)
            case em.WebPushNotificationMsg():
                record.notifications.append(message)
            case em.QueuedRunLogMsg():
                return _take_queued_run_log(unit, message)
            case em.RunLogMsg():
                return _take_run_log(unit, message)
            case em.TagsUpdatedMsg():
                return self._take_tags(unit, message)
            case em.RunStartedMsg():
                return self._start_run(record, message)
            case em.RunStoppedMsg():
                return self._stop_run(record, message)
        return None

    def _take_tags(self, unit: Unit, message: em.TagsUpdatedMsg) -> str | None:
        run = unit.run
        if run is None and message.run_id is not None:
            return f"tags of run {message.run_id}, but no run is active"
        if run is not None and message.run_id is None:
            return f"tags without run id, but run {run.run_id} is active"
        for tag in message.tags:
            if _counts(tag):
                unit.tags[tag.name] = tag
        if run is not None and unit.tags:
            self._store(unit, run)
        return None

    def _store(self, unit: Unit, run: Run) -> None:
        """Store the tags that changed since the last time, all with the time of the newest."""
        newest, last = max(tag.tick_time for tag in unit.tags.values()), run.stored_until
        info = unit.uod_info
        interval_s = math.inf if info is None else info.data_log_interval_seconds
        if last is not None and newest - last <= interval_s:
            return
        plot = self.plot_log.get(run.run_id, {})
        for tag in unit.tags.values():
            if tag.name in plot and (last is None or tag.tick_time > last):
                plot[tag.name].append(Sample(newest, tag.value))
        run.stored_until = newest

    def _start_run(self, record: EngineRecord, message: em.RunStartedMsg) -> str | None:
        unit = record.unit
        unit.queued_run_log = NO_LINES
        current = unit.run
        repeated = current is not None and current.run_id == message.run_id
        if not repeated:
            if current is not None:
                sometimes("other run archived")
                self._archive(record.engine_id, unit, current, archive=None, filename=None)
            unit.end_run()
            unit.run = Run(message.run_id, message.started_tick)
        plot = self.plot_log.setdefault(message.run_id, {})
        for name in unit.plotted:
            plot.setdefault(name, [])
        return f"run {message.run_id} is active already" if repeated else None

    def _stop_run(self, record: EngineRecord, message: em.RunStoppedMsg) -> str | None:
        unit, run = record.unit, record.unit.run
        if run is None:
            return f"end of run {message.run_id}, but no run is active"
        if run.run_id == message.run_id:
            run.run_log = message.runlog
            unit.method_state = message.method_state
        self._archive(record.engine_id, unit, run, message.archive, message.archive_filename)
        unit.end_run()
        if run.run_id != message.run_id:
            return f"end of run {message.run_id} has ended run {run.run_id}"
        return None

    def _archive(
        self, engine_id: str, unit: Unit, run: Run, archive: str | None, filename: str | None
    ) -> None:
        self.recent_runs.append(
            RecentRun(
                engine_id=engine_id,
                run_id=run.run_id,
                started_tick=run.started_tick,
                run_log=run.run_log,
                method=unit.method,
                method_state=unit.method_state,
                error_log=unit.error_log,
                archive=archive,
                archive_filename=filename,
            )
        )


def engine_id_of(message: em.RegisterEngineMsg) -> str:
    """Return the id that the aggregator gives to an engine with this registration."""
    return quote(f"{message.computer_name}_{message.uod_name}", safe="")


def _counts(tag: mdl.TagValue) -> bool:
    """Tell whether a tag's value is taken; an archived mark goes back to "", which is not."""
    return tag.name != mdl.SystemTagName.MARK or tag.value != ""


def _finds_nothing(unit: Unit, message: em.TagsUpdatedMsg) -> bool:
    """Tell whether the first sample of a run is due for storing, but there is no tag to store."""
    run = unit.run
    is_first = run is not None and run.stored_until is None and message.run_id is not None
    return is_first and not unit.tags and not any(map(_counts, message.tags))


def _log_errors(log: list[LoggedError], entries: list[mdl.ErrorLogEntry]) -> None:
    for entry in entries:
        last = log[-1] if log else None
        if last is None or (last.message, last.severity) != (entry.message, entry.severity):
            log.append(LoggedError(entry.message, entry.created_time, entry.severity))
        elif last.created_time < entry.created_time:
            last.created_time = entry.created_time
            last.occurrences += 1


def _take_queued_run_log(unit: Unit, message: em.QueuedRunLogMsg) -> str | None:
    if unit.run is not None:
        return f"queued run log, but run {unit.run.run_id} is active"
    unit.queued_run_log = message.runlog
    return None


def _take_run_log(unit: Unit, message: em.RunLogMsg) -> str | None:
    if unit.run is None or unit.run.run_id != message.run_id:
        active = f"run {unit.run.run_id}" if unit.run else "no run"
        return f"run log of run {message.run_id}, but {active} is active"
    unit.run.run_log = message.runlog
    return None
