"""What the threads of an engine, the disk and Trio do to one outbox, and what must come of it.

The engine begins and ends runs, notifies and logs. The disk's thread commits when it is asked to.
Trio's thread takes samples and plays the sender. What is taken reaches the aggregator at once. Its
answer comes later, or never when the link is lost. In the end everything is delivered, or the
process is killed at some step. Then its files are copied as they are, and the next process delivers
what it finds.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import trio
from attrs import define, field

from tests.threads.scheduler import STEPS, Scheduler
from trio_runner import DurableOutbox, MemoryOutbox, PlainEngine
from trio_runner._intake import Intake
from trio_runner._outbox import COMMIT_S, Entry, Outbox
from trio_runner.protocol import encode_body, loads
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

FAST = Path("/dev/shm")  # noqa: S108 - a fresh folder is made in it
"""Where files cost least, if the system has such a place."""

SAMPLE_S = 0.3
"""The time between two samples of a steady link (s)."""

COMMIT_TAKES_S = 0.4
"""How long a commit takes (s): longer than that, but less than what counts as slow."""

STEADY_S = 6
"""For how long the steady link is watched (s)."""

WITHHELD_S = 0.5
"""How soon the sender looks again when the disk comes first (s)."""


class Killed(BaseException):
    """Raised to end a schedule in the middle."""


class Broken(AssertionError):
    """Raised when a promise was not kept."""


@define(eq=False)
class Aggregator:
    """Takes messages as the real aggregator does, and checks the order and the fate of each."""

    run: str | None = None
    got: dict[str, None] = field(factory=dict)
    """What has arrived, in the order of the first arrival."""
    samples: int = 0
    bodies: dict[int, bytes] = field(factory=dict)
    """The body that was sent with each number."""

    def handle(self, entry: Entry) -> None:
        """Take a message in. Raises Broken if it breaks a promise."""
        is_same = self.bodies.setdefault(entry.sequence_number, entry.body) == entry.body
        self._expect(is_same, entry, "it was another one when it was sent before")
        said = loads(entry.text)
        if entry.kind is em.RunStartedMsg:
            self._expect(self.run in (None, said["run_id"]), entry, "another run is on")
            self.run = said["run_id"]
        elif entry.kind is em.RunStoppedMsg:
            is_again = f"{entry.kind.__name__} {said['run_id']}" in self.got
            self._expect(self.run == said["run_id"] or is_again, entry, "that run is not on")
            self.run = None
        elif entry.kind is em.TagsUpdatedMsg:
            self._expect(self.run == said["run_id"], entry, f"it is of the run {said['run_id']}")
        self.samples += entry.kind is em.TagsUpdatedMsg
        self.got.update(dict.fromkeys(keys_of(entry.kind, said)))

    def _expect(self, is_right: bool, entry: Entry, why: str) -> None:
        if not is_right:
            raise Broken(f"{entry} is refused in the run {self.run}: {why}")


def keys_of(kind: type[em.EngineMessage], said: dict[str, Any]) -> list[str]:
    """Return what an event tells, with a different name for each thing."""
    if kind is em.WebPushNotificationMsg:
        return [said["notification"]["body"]]
    if kind is em.ErrorLogMsg:
        return [entry["message"] for entry in said["log"]["entries"]]
    return [] if kind is em.TagsUpdatedMsg else [f"{kind.__name__} {said['run_id']}"]


@define(eq=False, slots=False)
class Engine(PlainEngine):
    """An engine whose one tag counts the samples."""

    run: str | None = None
    count: int = 0
    errors: list[str] = field(factory=list)

    def read_tags(self) -> list[mdl.TagValue]:
        self.count += 1
        return [mdl.TagValue(name="Count", tick_time=0.0, value=self.count, value_unit="")]

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        if not self.errors:
            return None
        errors, self.errors = self.errors, []
        return log_of(*errors)


def log_of(*errors: str) -> em.ErrorLogMsg:
    """Return an error log with these errors."""
    entries = [mdl.ErrorLogEntry(message=text, created_time=0.0, severity=40) for text in errors]
    return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries))


@define(eq=False)
class Sender:
    """Sends by the rules of order, as far as these concern threads."""

    outbox: Outbox
    aggregator: Aggregator
    in_flight: list[Entry] = field(factory=list)

    def send(self) -> bool:
        """Send the next message if it may go out; return whether one was sent or passed over."""
        if any(entry.is_run_event for entry in self.in_flight):
            return False
        if self.outbox.has_aside and not any(entry.is_notice for entry in self.in_flight):
            aside = self.outbox.next_aside()
            if aside.is_queued and self.outbox.make_ready(aside):
                self._send(self.outbox.take_aside(aside))
                return True
        head = self.outbox.head()
        if head is None:
            return False
        if head.is_notice and any(entry.is_notice for entry in self.in_flight):
            self.outbox.let_pass()
            return True
        if head.is_run_event and (self.in_flight or self.outbox.has_aside):
            return False
        if not self.outbox.make_ready(head):
            return False
        self._send(self.outbox.take())
        return True

    def _send(self, entry: Entry) -> None:
        self.in_flight.append(entry)
        self.aggregator.handle(entry)

    def answer(self) -> bool:
        """Let the oldest message be answered; return whether there was one."""
        if self.in_flight:
            self.outbox.delivered(self.in_flight.pop(0))
            return True
        return False

    def lose_link(self) -> None:
        """Lose the link and get a new one."""
        self.in_flight.clear()
        self.outbox.rewind()
        if self.outbox.open_run is not None:
            self.aggregator.handle(self.outbox.open_run)


@define(eq=False)
class Play:
    """The schedule of one seed, from the start to the verdict; `spoil` may break it beforehand."""

    seed: int
    spoil: Callable[["Play"], None] = field(default=lambda _: None)
    rng: Random = field(init=False)
    threads: Scheduler = field(init=False)
    folder: Path = field(init=False)
    outbox: Outbox = field(init=False)
    engine: Engine = field(factory=lambda: Engine("Unit", computer_name="host"), init=False)
    intake: Intake = field(init=False)
    aggregator: Aggregator = field(factory=Aggregator, init=False)
    sender: Sender = field(init=False)
    posted: dict[str, None] = field(factory=dict, init=False)
    """The events of the engine that count as queued, in order."""
    doubtful: set[str] = field(factory=set, init=False)
    """Those of them that may be lost in a kill, because the disk was reported as slow."""
    _was_killed: bool = field(default=False, init=False)
    _waited_s: float = field(default=0.0, init=False)
    _hangs: bool = field(init=False)
    _is_steady: bool = field(init=False)
    """Whether the schedule ends with a steady link, on which each commit finds something new."""
    _is_wanted: bool = field(default=False, init=False)
    _bell: bool = field(default=False, init=False)
    _playing: set[str] = field(factory=lambda: {"engine", "trio"}, init=False)

    def __attrs_post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.threads = Scheduler(self.rng, changes=self.rng.randrange(6))
        self._hangs = self.rng.random() < 0.2
        self._is_steady = not self._hangs and self.rng.random() < 0.1

    def run(self) -> None:
        """Play the schedule. Raises Broken, Deadlock, or what a thread has raised."""
        with tempfile.TemporaryDirectory(dir=FAST if FAST.exists() else None) as folder:
            self.folder = Path(folder)
            self._play()

    def _play(self) -> None:
        is_durable = self.rng.random() < 0.8
        self.outbox = self._durable() if is_durable else MemoryOutbox(threads=self.threads)
        self.intake = Intake(self.engine, self.outbox, lambda: 0.0)
        self.sender = Sender(self.outbox, self.aggregator)
        self.threads.start("engine", self._be_the_engine)
        self.threads.start("trio", lambda: trio.run(self._be_trio))
        if is_durable:
            self.outbox.commit_wanted = self._want_commit
            self.threads.start("disk", self._be_the_disk)
        if is_durable and not self._hangs and self.rng.random() < 0.5:
            self.threads.kill_at, self.threads.kill = self.rng.randrange(STEPS), self._kill
        self.spoil(self)
        try:
            self.threads.run()
        except Killed:
            self._begin_anew()
        finally:
            self.outbox.commit_wanted = None
            self.outbox.close()
        self._judge()

    def _durable(self, folder: str = "") -> DurableOutbox:
        path = self.folder / folder / "outbox"
        clock, connect = (lambda: self.threads.now), self._connect
        return DurableOutbox(path, threads=self.threads, clock=clock, connect=connect)

    def _judge(self) -> None:
        if self.threads.violation is not None:
            raise Broken(self.threads.violation)
        got = [key for key in self.aggregator.got if key in self.posted]
        lost = self.doubtful - set(got) if self._was_killed else set[str]()
        due = [key for key in self.posted if key not in lost]
        # What is logged becomes part of what was logged before, even across a notification.
        for passed in ("error", "Look"):
            if _without(passed, got) != _without(passed, due):
                raise Broken(f"posted {list(self.posted)}, arrived {got}")

    # The engine's thread

    def _be_the_engine(self) -> None:
        for number in range(self.rng.randrange(2, 9)):
            self.threads.step()
            self.rng.choice((self._toggle_run, self._notify, self._log, self._look))(number)
        self._playing.discard("engine")
        self._bell = True

    def _toggle_run(self, number: int) -> None:
        run, self.engine.run = self.engine.run, None if self.engine.run else f"run {number}"
        if run is None:
            self._post(self.engine.create_run_started_msg(f"run {number}", 0.0))
        else:
            self._post(self.engine.create_run_stopped_msg(run))

    def _notify(self, number: int) -> None:
        self._post(self.engine.create_wpn_notify_command_msg(f"Look {number}"))

    def _log(self, number: int) -> None:
        self._post(log_of(f"error {number}"))

    def _look(self, number: int) -> None:
        self.outbox.statistics()
        self.engine.errors.append(f"an error that is collected {number}")

    def _post(self, message: em.EngineMessage) -> None:
        began = self.threads.now
        self.intake.post(message)
        self._bell = True
        self._waited_s += self.threads.now - began
        if self._waited_s > 1.0 + 0.1 * self.threads.now + 1e-6:
            raise Broken(f"the engine waited for {self._waited_s} s in {self.threads.now} s")
        if self.outbox.statistics().degraded is not None:
            self.doubtful.update(keys_of(type(message), loads(encode_body(message))))
        self.posted.update(dict.fromkeys(keys_of(type(message), loads(encode_body(message)))))

    # The disk's thread

    def _want_commit(self) -> None:
        self._is_wanted = True

    def _be_the_disk(self) -> None:
        while self._playing:
            self.threads.wait_for(lambda: self._is_wanted or not self._playing, COMMIT_S)
            self._is_wanted = False
            self.outbox.commit()
            self._bell = True

    def _connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        database = sqlite3.connect(*arguments, factory=Database, **options)
        assert isinstance(database, Database)
        database.play = self
        return database

    def write(self, sql: str) -> None:
        """Let others run before a step of a commit, which may take long."""
        running = self.threads.running
        if running is not None:
            running.in_write = True
            if sql == "COMMIT" and self._hangs and self.rng.random() < 0.5:
                self.threads.wait_for(lambda: False, self.rng.uniform(0, 3))
            elif sql == "COMMIT" and self._is_steady:
                self.threads.wait_for(lambda: False, COMMIT_TAKES_S)
            self.threads.step()
            running.in_write = sql not in ("COMMIT", "ROLLBACK")

    def _kill(self) -> BaseException:
        """Copy the files as they are now, and note what has been promised."""
        shutil.copytree(
            self.folder, self.folder / "killed", ignore=shutil.ignore_patterns("killed")
        )
        self._was_killed = True
        self.posted = dict(self.posted)  # what is posted from here on belongs to a dead process
        return Killed()

    def _begin_anew(self) -> None:
        """Play the process after the killed one: end its run, and deliver what there is."""
        with self._durable("killed") as outbox:
            sender = Sender(outbox, self.aggregator)
            outbox.close_run()
            sender.lose_link()
            while sender.send() or sender.answer():
                pass
            if len(outbox) or self.aggregator.run is not None:
                raise Broken(f"{len(outbox)} messages wait in the end, {self.aggregator.run} is on")

    # Trio's thread

    async def _be_trio(self) -> None:
        """Sample and send inside Trio's run, so that code can tell so, but never wait with Trio."""
        for _ in range(self.rng.randrange(2, 12)):
            self.threads.step()
            self.rng.choice((self._sample, self._send, self._answer, self._send, self._lose))()
        while "engine" in self._playing or len(self.outbox):
            while self.sender.send() or self.sender.answer():
                pass
            self.threads.wait_for(lambda: self._bell, WITHHELD_S)
            self._bell = False
        if self._is_steady:
            self._be_steady()
        self._playing.discard("trio")

    def _be_steady(self) -> None:
        """Sample at the steady rate and log something each time; the disk must hold up nothing."""
        began, samples = self.threads.now, self.aggregator.samples
        while self.threads.now - began < STEADY_S:
            self.engine.errors.append(f"an error at {self.threads.now}")
            self._sample()
            while self.sender.send() or self.sender.answer():
                pass
            self.threads.wait_for(lambda: self._bell, SAMPLE_S)
            self._bell = False
        if self.aggregator.samples == samples:
            raise Broken(f"no sample went out in {STEADY_S} s")

    def _sample(self) -> None:
        self.intake.take_tags(whole=self.rng.random() < 0.5)
        self.intake.take_errors()
        self.intake.take_states()

    def _send(self) -> None:
        self.sender.send()

    def _answer(self) -> None:
        self.sender.answer()

    def _lose(self) -> None:
        self.sender.lose_link()


def _without(prefix: str, keys: list[str]) -> list[str]:
    return [key for key in keys if not key.startswith(prefix)]


def fault_of(seed: int) -> str | None:
    """Return what goes wrong with a seed, or None if nothing does."""
    try:
        Play(seed).run()
    except Exception as error:
        return f"{seed}: {error!r}"
    return None


class Database(sqlite3.Connection):
    """A connection on which threads may change at every statement."""

    play: Play

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith(("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")):
            self.play.write(sql)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self.play.write(sql)
        return super().executemany(sql, parameters)
