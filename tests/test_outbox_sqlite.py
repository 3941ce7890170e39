"""The durable outbox: what is on disk when, all faults of the file, and what people can do."""

import gc
import io
import json
import logging
import multiprocessing
import os
import resource
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.unit import Unit
from tests.test_outbox import LINE, UNIT, error_log, event, sample, taken, texts_of, waiting
from trio_runner import (
    DurableOutbox,
    NotAnOutbox,
    OutboxClosed,
    OutboxDamaged,
    OutboxError,
    OutboxInUse,
    OutboxNotFound,
    OutboxNotWritable,
    OutboxOfAnotherUnit,
    OutboxTooNew,
    PlainEngine,
)
from trio_runner._outbox import ENTRY_BYTES, Entry
from trio_runner._outbox_sqlite import discard, export, origin_of, summarize
from trio_runner.protocol import decode, decode_json, foreign
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import SimulatedDisk

SPAWN = multiprocessing.get_context("spawn")


def numbers(path: Path) -> list[int]:
    """Return the numbers of what waits in a file."""
    with DurableOutbox(path) as outbox:
        return waiting(outbox)


def crash(path: Path, to: Path) -> Path:
    """Copy what a process that dies now would leave on the disk."""
    for end in ("", "-wal"):
        if Path(f"{path}{end}").exists():
            shutil.copy(f"{path}{end}", f"{to}{end}")
    return to


def rows(path: Path, table: str = "messages") -> list[int]:
    """Return the numbers that a crash now would leave in a table."""
    with tempfile.TemporaryDirectory() as folder:
        copy = crash(path, Path(folder, "copy"))
        with closing(sqlite3.connect(copy)) as db:
            return [n for n, *_ in db.execute(f"SELECT * FROM {table} ORDER BY 1")]  # noqa: S608


# What is on disk when


def test_an_event_is_on_disk_when_put_returns_and_a_sample_at_the_commit(path: Path) -> None:
    """Earlier samples are written with an event; later ones follow at the commit."""
    with DurableOutbox(path) as outbox:
        outbox.put(sample(1))
        assert rows(path) == []
        outbox.put(event("two"))
        outbox.put(sample(3))
        assert rows(path) == [1, 2]
        outbox.commit()
        assert rows(path) == [1, 2, 3]


def test_what_is_answered_before_its_commit_never_touches_the_disk(path: Path) -> None:
    """1,000 samples that are delivered at once do not leave a single byte."""
    with DurableOutbox(path) as outbox:
        before = summary_of_files(path)
        for number in range(400):
            outbox.put(sample(number))
            outbox.delivered(outbox.take())
            outbox.commit()
        assert summary_of_files(path) == before


def summary_of_files(path: Path) -> list[tuple[int, int]]:
    files = [path, Path(f"{path}-wal")]
    return [(f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def test_a_sample_that_is_under_way_is_written_after_2_s_or_when_no_answer_comes(
    path: Path,
) -> None:
    """It is usually answered before that; one that was never sent is written at once."""
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.commit_wanted = lambda: None
        for number in range(4):
            outbox.put(sample(number))
        first, second = outbox.take(), outbox.take()
        outbox.delivered(first)
        outbox.commit()
        assert rows(path) == [3, 4]  # the second is under way
        outbox.take()
        now = 1.0
        outbox.commit()  # nothing has been answered for a second
        assert rows(path) == [2, 3, 4]
        outbox.put(sample(5))
        outbox.delivered(second)
        outbox.take()
        fifth = outbox.take()
        for now in (1.0, 1.6, 2.2, 2.8):  # noqa: B007 - the outbox's clock
            outbox.put(event("look"))  # the answer to this shows that the link lives
            outbox.commit()
            outbox.delivered(outbox.take())
            assert fifth.sequence_number not in rows(path)
        now = 3.0
        outbox.commit()
        assert fifth.sequence_number in rows(path)
        outbox.commit_wanted = None


def test_a_sample_that_is_under_way_is_written_when_its_link_breaks_or_the_outbox_is_closed(
    path: Path,
) -> None:
    """It waits again, or its outcome is unknown."""
    with DurableOutbox(path) as outbox:
        for number in range(3):
            outbox.put(sample(number))
        outbox.delivered(outbox.take())
        outbox.take()
        outbox.commit()
        assert rows(path) == [3]
        outbox.rewind()
        outbox.commit()
        assert rows(path) == [2, 3]
        outbox.take()
        outbox.put(sample(4))
    assert rows(path) == [2, 3, 4]


def test_an_event_that_is_not_on_disk_yet_is_not_sent(path: Path) -> None:
    """The sender does not see an event that is in the line but not yet on the disk."""
    with DurableOutbox(path) as outbox:
        with outbox._disk.writing:  # the disk is busy with something else
            thread = threading.Thread(target=outbox.put, args=(event("one"),))
            thread.start()
            while not len(outbox):
                time.sleep(0.001)
            assert outbox.head() is None
        thread.join()
        assert outbox.head() is not None


def test_thinned_samples_leave_the_disk(path: Path) -> None:
    """Samples that the bound gave up are not there after a restart either."""
    with DurableOutbox(path, bytes_max=20 * (ENTRY_BYTES + 200)) as outbox:
        for number in range(100):
            outbox.put(sample(number))
            outbox.commit()
        assert outbox.statistics().thinned > 0
        kept = [entry.sequence_number for entry in outbox._line]
        assert rows(path) == kept
    assert numbers(path) == kept


def test_reading_back_goes_on_where_it_ended(path: Path) -> None:
    """First comes what was in flight, marked as tried, then the rest; numbers go on."""
    with DurableOutbox(path) as outbox:
        for number in range(4):
            outbox.put(sample(number))
        first, second = outbox.take(), outbox.take()
        outbox.delivered(first)
    with DurableOutbox(path) as outbox:
        assert [(e.sequence_number, e.tries) for e in outbox._line] == [(2, 1), (3, 0), (4, 0)]
        assert outbox.take().text == second.text
        assert outbox.next_number() == 5
        statistics = outbox.statistics()
        assert (statistics.waiting, statistics.samples_taken) == (3, 0)
        assert statistics.bytes_waiting == sum(e.size for e in [second, *outbox._line])


def test_no_number_is_used_twice_after_a_crash(path: Path, tmp_path: Path) -> None:
    """The numbers of states and of lost samples are skipped."""
    with DurableOutbox(path) as outbox:
        outbox.put(event("one"))
        used = [outbox.next_number() for _ in range(300)]
        copy = crash(path, tmp_path / "copy")
    with DurableOutbox(copy) as outbox:
        assert outbox.next_number() > used[-1]


def test_the_open_run_is_known_after_a_crash(path: Path, tmp_path: Path) -> None:
    """RunStarted is unchanged; the run log and the method state are at most one commit old."""
    state = em.MethodStateMsg(
        method_state=mdl.MethodState(
            started_line_ids=["1"],
            executed_line_ids=[],
            injected_line_ids=[],
            content_locked_line_ids=[],
            locked_line_ids=[],
            failed_line_ids=[],
        )
    )
    with DurableOutbox(path) as outbox:
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        started = outbox.take()
        outbox.delivered(started)
        outbox.put(em.RunLogMsg(id="", run_id="a", runlog=mdl.RunLog(lines=[LINE])))
        outbox.put(state)
        outbox.commit()
        copy = crash(path, tmp_path / "copy")
    with DurableOutbox(copy) as outbox:
        assert (len(outbox), outbox.run_id) == (0, "a")
        assert outbox.open_run is not None
        assert outbox.open_run.text == started.text
        assert outbox.open_run.sequence_number == started.sequence_number
        outbox.close_run()
        assert decode_json(outbox.take().text) == em.RunStoppedMsg(
            run_id="a",
            runlog=mdl.RunLog(lines=[LINE]),
            method_state=state.method_state,
            archive=None,
            archive_filename=None,
        )


@pytest.mark.parametrize(
    "event_of_run",
    [em.RunStartedMsg(run_id="1", started_tick=0.0), UNIT.create_run_stopped_msg("1")],
)
def test_samples_are_not_repeated_after_a_run_event_and_a_power_cut(
    path: Path, event_of_run: em.EngineMessage
) -> None:
    """What was answered before the event is off the disk when the event goes out.

    The aggregator would refuse it, as tags without a run in a run, or tags of a run that has ended.
    """
    with DurableOutbox(path) as outbox:
        outbox.put(sample(1))
        outbox.put(event_of_run)
        outbox.delivered(outbox.take())
        sent = outbox.take()
        assert rows(path) == [sent.sequence_number]


def test_the_end_of_a_run_is_not_repeated_after_the_next_beginning(path: Path) -> None:
    """The delivery of RunStopped is on the disk before anything after it can be sent."""
    with DurableOutbox(path) as outbox:
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.put(UNIT.create_run_stopped_msg("a"))
        outbox.put(UNIT.create_run_started_msg("b", 2.0))
        outbox.delivered(outbox.take())
        assert rows(path) == [2, 3]
        outbox.delivered(outbox.take())
        assert rows(path) == [3]


# Against a model, killed at any point

OPERATIONS = [
    "event",
    "sample",
    "run",
    "state",
    "take",
    "take",
    "deliver",
    "deliver",
    "retry",
    "set_aside",
    "rewind",
    "commit",
    "crash",
    "restart",
]


@define(eq=False)
class Model:
    """An outbox on disk, and what must be true of it."""

    folder: Path
    outbox: DurableOutbox = field(init=False)
    texts: dict[int, str] = field(factory=dict)
    events: set[int] = field(factory=set)
    alive: set[int] = field(factory=set)
    flying: list[Entry] = field(factory=list)
    is_answering: bool = False
    """Whether an answer has come in this process."""
    tried: set[int] = field(factory=set)
    on_disk: set[int] = field(factory=set)
    gone_on_disk: set[int] = field(factory=set)
    tried_on_disk: set[int] = field(factory=set)
    run: str | None = None
    open_run: int | None = None
    generation: int = 0

    def __attrs_post_init__(self) -> None:
        self.outbox = DurableOutbox(self.path)

    @property
    def path(self) -> Path:
        return self.folder / str(self.generation)

    def committed(self) -> None:
        """Note a commit. Samples under way are left to a later one while answers come."""
        under_way = {entry.sequence_number for entry in self.flying if not entry.is_event}
        put_off = under_way - self.on_disk if self.is_answering else set[int]()
        self.on_disk = self.alive - put_off
        self.gone_on_disk = set(self.texts) - self.alive
        self.tried_on_disk = set(self.tried)

    def put(self, message: em.EngineMessage, *, is_event: bool) -> None:
        self.outbox.put(message)
        number = self.outbox._line[-1].sequence_number
        assert number not in self.texts
        self.texts[number] = self.outbox._line[-1].text
        self.alive.add(number)
        if is_event:
            self.events.add(number)
            self.committed()

    def do_event(self) -> None:
        self.put(event(str(len(self.texts))), is_event=True)

    def do_sample(self) -> None:
        self.put(sample(len(self.texts)), is_event=False)

    def do_run(self) -> None:
        if self.run is None:
            self.run = f"run-{len(self.texts)}"
            self.put(UNIT.create_run_started_msg(self.run, 1.0), is_event=True)
        else:
            stopped, self.run = UNIT.create_run_stopped_msg(self.run), None
            self.put(stopped, is_event=True)

    def do_state(self) -> None:
        self.outbox.put(UNIT.create_method_state_msg())

    def do_take(self) -> None:
        if self.outbox.head() is not None:
            entry = self.outbox.take()
            self.flying.append(entry)
            self.tried.add(entry.sequence_number)

    def do_deliver(self) -> None:
        if self.flying:
            entry = self.flying.pop(0)
            self.outbox.delivered(entry)
            self.is_answering = True
            self.alive.discard(entry.sequence_number)
            if entry.kind in (em.RunStartedMsg, em.RunStoppedMsg):
                is_start = entry.kind is em.RunStartedMsg
                self.open_run = entry.sequence_number if is_start else None
                self.committed()

    def do_retry(self) -> None:
        if self.flying:
            self.outbox.retry(self.flying.pop(), 0)

    def do_set_aside(self) -> None:
        if self.flying and self.flying[-1].kind is em.TagsUpdatedMsg:
            entry = self.flying.pop()
            self.outbox.set_aside(entry, "no")
            self.alive.discard(entry.sequence_number)

    def do_rewind(self) -> None:
        self.outbox.rewind()
        self.flying.clear()

    def do_commit(self) -> None:
        self.outbox.commit()
        self.committed()

    def do_restart(self) -> None:
        self.outbox.close()
        self.flying.clear()  # the last commit leaves nothing out
        self.committed()
        self.outbox = DurableOutbox(self.path)
        self.check()

    def do_crash(self) -> None:
        to = self.folder / str(self.generation + 1)
        crash(self.path, to)
        self.outbox.close()
        self.generation += 1
        self.outbox = DurableOutbox(to)
        self.check()

    def check(self) -> None:
        """Compare what was read back, and go on from there."""
        found = [entry.sequence_number for entry in self.outbox._line]
        assert found == sorted(set(found))
        assert {n for n in self.events if n in self.alive} <= set(found)
        assert self.on_disk & self.alive <= set(found)
        assert not self.gone_on_disk & set(found)
        assert {n: self.texts[n] for n in found} == {
            e.sequence_number: e.text for e in self.outbox._line
        }
        marked = {entry.sequence_number for entry in self.outbox._line if entry.tries}
        assert self.tried_on_disk & set(found) <= marked <= self.tried
        assert self.outbox.run_id == self.run
        known = self.outbox.open_run
        assert (known.sequence_number if known else None) == self.open_run
        self.alive, self.tried, self.flying = set(found), marked, []
        self.is_answering = False
        self.committed()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), max_size=40))
def test_a_crash_at_any_point_keeps_what_was_promised(operations: list[str]) -> None:
    """Undelivered events are there in order, and samples as of the last commit, but no others.

    Only samples that were under way at that time, over a link that answered, may be missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder))
        try:
            for operation in [*operations, "crash"]:
                getattr(model, f"do_{operation}")()
        finally:
            model.outbox.close()


def _fill_until_killed(path: Path, told: Connection) -> None:
    outbox, stop = DurableOutbox(path), threading.Event()

    def keep_committing() -> None:
        while not stop.wait(0.001):
            outbox.commit()

    threading.Thread(target=keep_committing, daemon=True).start()
    for number in range(1_000_000):
        outbox.put(sample(number))
        outbox.put(event(str(number)))
        told.send(("put", outbox._numbers))
        if number % 3 == 2:
            gone = outbox.take()
            outbox.delivered(gone)
            outbox.commit()
            told.send(("gone", gone.sequence_number))


@pytest.mark.parametrize("words", [1, 200, 777])
def test_a_process_that_is_killed_leaves_what_was_promised(path: Path, words: int) -> None:
    """SIGKILL while writing leaves, in order, every event whose put had returned, and no other."""
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_fill_until_killed, args=(path, theirs))
    process.start()
    theirs.close()
    heard = [ours.recv() for _ in range(words)]
    process.kill()
    process.join()
    with closing(ours):
        while True:
            try:
                heard.append(ours.recv())
            except (EOFError, OSError):
                break
    put = {number for what, number in heard if what == "put"}
    gone = {number for what, number in heard if what == "gone"}
    found = numbers(path)
    assert found == sorted(found)
    assert not gone & set(found)
    # Odd numbers are samples. What else is missing had been delivered when it was killed.
    at_kill = max(gone, default=0) + 1
    assert {n for n in put if n > at_kill} <= set(found)


# Who may have the file


def test_only_the_owner_can_read_the_files(path: Path) -> None:
    """Mode 0600, for the log too and whatever the umask; a file open to all is closed."""
    before = os.umask(0)
    try:
        with DurableOutbox(path) as outbox:
            outbox.put(event("one"))
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["unit.outbox", "unit.outbox-wal"]
            assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
        path.chmod(0o644)
        with DurableOutbox(path) as outbox:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def _open_and_tell(path: Path, told: Connection) -> None:
    told.send(f"person: {summarize(path).is_in_use}")
    try:
        discard(path)
    except OutboxInUse as error:
        told.send(f"person: {error}")
    try:
        DurableOutbox(path).close()
    except OutboxInUse as error:
        told.send(f"engine: {error}")
    told.close()


def test_a_second_process_is_told_that_the_file_is_in_use(path: Path) -> None:
    """Neither an engine nor a person can change a running engine's file, but people can look."""
    with DurableOutbox(path) as outbox:
        outbox.put(event("one"))
        ours, theirs = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=_open_and_tell, args=(path, theirs))
        process.start()
        theirs.close()
        with closing(ours):
            assert ours.recv() == "person: True"
            for who in ("person", "engine"):
                assert ours.recv() == (
                    f"{who}: The outbox {path} is in use by another process: an outbox is for one"
                    " engine. Stop that process, or use another path."
                )
        process.join()
        with pytest.raises(OutboxInUse):  # nor in this process
            DurableOutbox(path)
        outbox.put(event("two"))
    assert numbers(path) == [1, 2]


def test_messages_of_another_unit_are_not_taken_over(path: Path) -> None:
    """While some wait, another unit is refused; after that the file is its own."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_A")
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
    with DurableOutbox(path) as outbox:
        with pytest.raises(
            OutboxOfAnotherUnit, match=r"messages of host_A \(1 waiting\), but this is B"
        ):
            outbox.claim("B")
        outbox.claim("host_A")
        outbox.delivered(outbox.take())
        outbox.claim("B")
        assert (outbox.run_id, outbox.open_run) == (None, None)
    assert summarize(path).unit == "B"


def test_after_the_host_is_renamed_old_messages_are_kept_and_new_ones_flow(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are in their own outbox, under their own name, and the log says where."""
    with DurableOutbox(path) as outbox:
        outbox.claim("dhcp-17_Skid")
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.delivered(outbox.take())
        outbox.put(sample(1))
        outbox.put(event("two"))
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Skid")
        assert (len(outbox), outbox.run_id, outbox.open_run) == (0, None, None)
        assert outbox.statistics().bytes_waiting == 0
        outbox.put(event("new"))
        assert "new" in outbox.take().text
    aside = path.with_name("unit.outbox.dhcp-17_Skid")
    assert f"(messages: 2) is kept in {aside}" in caplog.text
    kept = summarize(aside)
    assert (kept.unit, kept.waiting, kept.open_run) == ("dhcp-17_Skid", 2, "a")
    assert (summarize(path).unit, summarize(path).waiting) == ("lab_Skid", 1)


def test_without_room_for_a_new_name_the_error_says_so_and_nothing_is_left_behind(
    tmp_path: Path,
) -> None:
    """The old unit's messages stay where they are, and move once there is room."""
    disk = SimulatedDisk(tmp_path, Random(1))
    with DurableOutbox(disk.path, connect=disk.connect) as outbox:
        outbox.claim("old_Skid")
        outbox.put(event("one"))
    with DurableOutbox(disk.path, connect=disk.connect) as outbox:
        disk.is_full = True
        with pytest.raises(OutboxNotWritable, match=r"Is the disk full or broken\?"):
            outbox.claim("new_Skid")
        assert [file.name for file in disk.path.parent.iterdir() if "Skid" in file.name] == []
        disk.is_full = False
        assert len(outbox) == 1
        outbox.claim("new_Skid")
        assert len(outbox) == 0
    assert summarize(disk.path.with_name("unit.outbox.old_Skid")).waiting == 1


def test_without_room_for_a_new_file_at_all_nothing_is_left_behind(path: Path) -> None:
    """A service that starts again and again must not leave an empty file each time."""
    is_full = False

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        if is_full:
            db.execute("PRAGMA max_page_count = 1")
        return db

    with DurableOutbox(path, connect=connect) as outbox:
        outbox.claim("old_Skid")
        outbox.put(event("one"))
        is_full = True
        with pytest.raises(OutboxNotWritable, match=r"Is the disk full or broken\?"):
            outbox.claim("new_Skid")
        assert [file.name for file in path.parent.iterdir() if "Skid" in file.name] == []


def test_what_stands_aside_or_is_under_way_is_kept_under_the_old_name_too(path: Path) -> None:
    """A second runner in the process of the first may have another name."""
    with DurableOutbox(path) as outbox:
        outbox.claim("old_Unit")
        for text in "abc":
            outbox.put(event(text))
        outbox.let_pass()
        outbox.take()
        outbox.claim("new_Unit")
        statistics = outbox.statistics()
        assert (statistics.waiting, statistics.bytes_waiting) == (0, 0)
    assert rows(path) == []


def test_what_was_set_aside_under_an_old_name_stays_with_it(path: Path) -> None:
    """Requeued, it would be sent under the new name, which may even be that of another unit."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Skid")
        outbox.put(event("one"))
        outbox.set_aside(outbox.take(), "not understood")
    for new in ("lab_Skid", "lab_Other"):
        with DurableOutbox(path) as outbox:
            outbox.claim(new)
        assert summarize(path).set_aside == []
    kept = summarize(path.with_name("unit.outbox.host_Skid"))
    assert [(a.sequence_number, a.reason) for a in kept.set_aside] == [(1, "not understood")]
    assert (kept.unit, kept.waiting) == ("host_Skid", 0)
    assert len(list(path.parent.iterdir())) == 2


def test_a_run_that_is_on_under_an_old_host_name_is_kept_too(path: Path) -> None:
    """Nothing else waits, but its end must be told under that name."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Skid")
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.delivered(outbox.take())
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Skid")
    kept = summarize(path.with_name("unit.outbox.host_Skid"))
    assert (kept.waiting, kept.open_run) == (0, "a")


class Still(PlainEngine):
    """An engine that can be described outside Trio."""

    def read_tags(self) -> list[mdl.TagValue]:
        return [mdl.TagValue(name="Count", tick_time=1.0, value=1, value_unit="L")]


def test_the_file_knows_how_the_unit_registers_and_what_it_is(path: Path, tmp_path: Path) -> None:
    """It does at once, even without a run, and without the secret; another unit's is forgotten."""
    unit = Still("Skid", computer_name="host", location="Lab 4", secret="hush hush")  # noqa: S106
    register, uod_info = unit.create_register_engine_msg(), unit.create_uod_info()
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Skid", register)
        outbox.put(uod_info)
        outbox.put(unit.create_method_msg())
        outbox.commit()
        crashed = crash(path, tmp_path / "crashed")
    origin = origin_of(crashed)
    assert decode(origin.registration) == evolve(register, secret="")
    assert decode({"sequence_number": -1, "engine_id": "", **(origin.uod_info or {})}) == uod_info
    assert origin.method is not None
    with DurableOutbox(crashed) as outbox:
        outbox.claim("host_Skid")  # without saying it again
        assert outbox.registration is not None
        assert "hush" not in outbox.registration
        outbox.claim("host_Other")
    origin = origin_of(crashed)
    assert (origin.computer_name, origin.uod_name) == ("host", "Other")
    assert (origin.registration, origin.uod_info, origin.method) == ({}, None, None)


def test_a_spoilt_description_of_the_unit_stops_no_engine(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine describes itself again, and the damage is told."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Unit", UNIT.create_register_engine_msg())
        outbox.put(Still().create_uod_info())
        outbox.put(event("one"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE facts SET value = x'00' WHERE name IN ('registration', 'uod_info')")
        db.commit()
    with DurableOutbox(path) as outbox:
        assert outbox.state(em.UodInfoMsg) is None
        assert len(outbox) == 1
    assert f"The disk has damaged the registration in the outbox {path}" in caplog.text


def test_an_outbox_that_is_not_closed_warns(path: Path) -> None:
    """This is a leak, like that of a file; what was put in is on the disk nevertheless."""
    outbox = DurableOutbox(path)
    outbox.put(event("one"))
    with pytest.warns(ResourceWarning, match=f"unclosed outbox {path}"):
        del outbox
    assert numbers(path) == [1]


def test_an_outbox_that_could_not_be_made_ends_without_another_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The garbage collector finds it before it knows whether it is open."""
    ignored = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(TypeError):
        DurableOutbox(None)  # type: ignore[arg-type]
    gc.collect()
    assert ignored == []


def test_a_closed_outbox_takes_nothing(path: Path) -> None:
    """What it took would be lost, so it says so. Closing it twice is no error."""
    outbox = DurableOutbox(path)
    outbox.close()
    outbox.close()
    for message in (sample(1), outbox.prepare(sample(1))):
        with pytest.raises(OutboxClosed, match=r"TagsUpdatedMsg: the outbox .* is closed"):
            outbox.enter(message)


def test_a_database_that_fails_as_it_is_closed_keeps_what_was_written(path: Path) -> None:
    """All that was committed is in its log, so there is nothing to tell."""

    class Failing(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise sqlite3.OperationalError("disk I/O error")

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, factory=Failing, **options)

    with DurableOutbox(path, connect=connect) as outbox:
        outbox.put(event("a"))
        outbox.put(sample(1))
    assert numbers(path) == [1, 2]


# Faults when it is opened


def test_a_file_of_a_newer_schema_is_left_alone(path: Path) -> None:
    """The error says to update, and nothing is changed."""
    DurableOutbox(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(OutboxTooNew, match=r"schema 2, this one knows 1\). Update trio-runner"):
        DurableOutbox(path)
    assert path.read_bytes() == before


def test_a_file_that_is_something_else_is_left_alone(path: Path) -> None:
    """A text and the database of another program are not touched, not even by discarding."""
    path.write_text("notes\n" * 1000)
    with pytest.raises(NotAnOutbox, match="is not an outbox: it is not an SQLite database"):
        DurableOutbox(path)
    with pytest.raises(NotAnOutbox):
        discard(path)
    assert path.read_text() == "notes\n" * 1000
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(NotAnOutbox, match="the database of another program"):
        DurableOutbox(path)
    with pytest.raises(NotAnOutbox):
        discard(path)
    assert path.read_bytes() == before


def test_the_permissions_of_something_else_are_left_alone(path: Path) -> None:
    """A text and a folder that everybody may read stay so when they are taken for an outbox."""
    path.write_text("notes\n" * 1000)
    path.chmod(0o644)
    with pytest.raises(NotAnOutbox):
        summarize(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.parent.chmod(0o755)
    with pytest.raises(OutboxError):
        summarize(path.parent)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_damaged_beginning_of_the_open_run_is_found_although_its_end_waits(
    path: Path, tmp_path: Path
) -> None:
    """It is sent as it lies on the disk with every new link, even while the run's end waits."""
    with DurableOutbox(path) as outbox:
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.delivered(outbox.take())
        outbox.put(UNIT.create_run_stopped_msg("a"))
        copy = crash(path, tmp_path / "copy")
    db = sqlite3.connect(copy)
    with db:
        (body,) = db.execute("SELECT value FROM facts WHERE name = 'open_run_body'").fetchone()
        damaged = body[:30] + bytes([body[30] ^ 1]) + body[31:]
        db.execute("UPDATE facts SET value = ? WHERE name = 'open_run_body'", (damaged,))
    db.close()
    with pytest.raises(OutboxDamaged):
        DurableOutbox(copy)


@pytest.mark.parametrize("shape", [{"run_id": "a", "batch": 7}, {"run_id": "a"}])
def test_a_beginning_of_a_run_in_another_shape_is_no_damage(
    path: Path, shape: dict[str, object]
) -> None:
    """An engine of another version may add fields that are not known here, or leave some out."""
    with DurableOutbox(path) as outbox:
        outbox.put(foreign({"_type": "RunStartedMsg", **shape}, em.RunStartedMsg))
    with DurableOutbox(path) as outbox:
        assert outbox.run_id == "a"
        outbox.delivered(outbox.take())
    with DurableOutbox(path) as outbox:
        assert outbox.run_id == "a"
        assert outbox.open_run is not None
    assert summarize(path).open_run == "a"
    assert discard(path) == 0


def test_a_damaged_file_says_so_and_can_be_discarded(path: Path) -> None:
    """Pages full of rubbish are found at the opening, and what can be read can be exported."""
    with DurableOutbox(path) as outbox:
        for number in range(1000):
            outbox.put(sample(number))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 4096 * 8)
        file.write(b"\x5a" * 4096 * 4)
    with pytest.raises(OutboxDamaged, match=r"cannot be read: .*Move the file away"):
        DurableOutbox(path)
    read = io.StringIO()
    with pytest.raises(OutboxDamaged):
        export(path, read)
    lines = [json.loads(line)["sequence_number"] for line in read.getvalue().splitlines()]
    assert lines == list(range(1, len(lines) + 1))
    assert len(lines) > 500
    assert discard(path) == -1
    assert list(path.parent.iterdir()) == []


def test_a_message_that_the_disk_has_spoilt_is_set_aside(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed byte in a body costs only that message, which is told and listed."""
    with DurableOutbox(path) as outbox:
        for number in range(3):
            outbox.put(sample(number))
    with closing(sqlite3.connect(path)) as db:
        (body,) = db.execute("SELECT body FROM messages WHERE sequence_number = 2").fetchone()
        spoilt = body[:9] + bytes([body[9] ^ 1]) + body[10:]
        db.execute("UPDATE messages SET body = ? WHERE sequence_number = 2", [spoilt])
        db.commit()
    with DurableOutbox(path) as outbox:
        assert outbox.statistics().set_aside == 1
        assert [e.sequence_number for e in outbox._line] == [1, 3]
    assert "The disk has damaged TagsUpdatedMsg 2: it is set aside" in caplog.messages
    assert [(s.sequence_number, s.reason) for s in summarize(path).set_aside] == [
        (2, "spoilt on the disk")
    ]
    assert export(path, io.StringIO(), set_aside=True) == 0
    assert f"Messages of {path} that the disk has damaged are left out: 1" in caplog.messages


@contextmanager
def no_root() -> Iterator[None]:
    """Take the rights of nobody, since nothing would stop root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written_says_so() -> None:
    """This covers a new file in it, a file that exists, and a folder that does not exist."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "unit.outbox"
        DurableOutbox(path).close()
        path.chmod(0o666)
        folder.chmod(0o555)
        with no_root():
            with pytest.raises(OutboxNotWritable, match="cannot be written"):
                DurableOutbox(folder / "new.outbox")
            with pytest.raises(OutboxNotWritable, match="cannot be written"):
                DurableOutbox(path)
        with pytest.raises(OutboxNotWritable, match="There is no folder"):
            DurableOutbox(folder / "missing" / "unit.outbox")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, _fifo, _socket, lambda path: path.symlink_to("/dev/null")],
    ids=["folder", "pipe", "socket", "link to a device"],
)
def test_something_that_is_no_regular_file_is_refused_untouched(
    path: Path, make: Callable[[Path], None]
) -> None:
    """Even if root starts the engine, neither the thing nor its permissions change."""
    make(path)
    before = path.stat().st_mode
    for use in (DurableOutbox, summarize, discard):
        with pytest.raises(NotAnOutbox, match="it is not a regular file"):
            use(path)
    assert path.stat().st_mode == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another's file")
def test_another_users_empty_file_is_refused_untouched(path: Path) -> None:
    """It waits for something of theirs, so its permissions and its emptiness stay."""
    path.touch(0o644)
    os.chown(path, 65534, 65534)
    with pytest.raises(NotAnOutbox, match="belongs to another user"):
        DurableOutbox(path)
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o644, 0)


# Faults while it runs


def _meet_a_full_disk(path: Path, told: Connection) -> None:
    now = [0.0]
    outbox = DurableOutbox(path, clock=lambda: now[0])
    outbox.put(event("0"))
    room = Path(f"{path}-wal").stat().st_size + 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    for number in range(1, 100):
        outbox.put(event(str(number)))
    degraded = [outbox.statistics().degraded]
    for now[0] in (29.9, 30.0):  # not yet tried; then tried, and the disk is still full
        outbox.commit()
        degraded.append(outbox.statistics().degraded)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for now[0] in (59.9, 60.0):
        outbox.put(sample(1))
        outbox.commit()
        degraded.append(outbox.statistics().degraded)
    outbox.put(event("last"))
    told.send((degraded, outbox._numbers))
    time.sleep(60)


def test_a_full_disk_degrades_and_everything_is_written_when_there_is_room(path: Path) -> None:
    """File sizes are limited: the outbox goes on in memory, says so, and recovers at 60 s."""
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_meet_a_full_disk, args=(path, theirs))
    process.start()
    theirs.close()
    with closing(ours):
        degraded, last = ours.recv()
    process.kill()
    process.join()
    assert [reason is not None for reason in degraded] == [True, True, True, True, False]
    assert "disk I/O error" in degraded[0] or "full" in degraded[0]
    # 100 events, 2 samples and 1 event; it was killed before it was closed.
    assert last == 103
    assert numbers(path) == list(range(1, 104))


def test_a_file_that_vanishes_is_noticed_and_made_anew(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Writing into a deleted file would be a silent loss. It is said once and tried every 30 s."""
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        for number in range(5):
            outbox.put(event(str(number)))
        outbox.delivered(outbox.take())
        moved = path.rename(path.with_name("moved"))
        Path(f"{path}-wal").unlink()
        path.mkdir()
        for now in (1.0, 32.0, 63.0):
            outbox.put(event(str(now)))
            assert outbox.statistics().degraded is not None
        errors = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "wait in memory only" in errors[0].message
        path.rmdir()
        now = 94.0
        outbox.commit()
        assert outbox.statistics().degraded is None
        assert rows(path) == [2, 3, 4, 5, 6, 7, 8]
    assert moved.exists()


def test_another_outbox_in_the_same_place_is_not_touched(path: Path, tmp_path: Path) -> None:
    """The messages of a stranger are neither sent nor deleted; the outbox stays in memory."""
    other = tmp_path / "other"
    with DurableOutbox(other) as outbox:
        outbox.put(event("theirs"))
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.put(event("ours"))
        Path(f"{path}-wal").unlink()
        other.replace(path)
        outbox.put(event("more"))
        now = 30.0
        outbox.put(event("and more"))
        assert "Another outbox is at" in str(outbox.statistics().degraded)
    with DurableOutbox(path) as outbox:
        assert "theirs" in outbox.take().text
        assert len(outbox) == 1


def test_what_is_delivered_while_the_disk_is_away_is_gone_when_it_is_back(path: Path) -> None:
    """The file that comes back is updated: messages are removed, added, and marked as tried."""
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        for number in range(3):
            outbox.put(event(str(number)))
        moved = path.rename(path.with_name("moved"))
        outbox.put(event("3"))
        outbox.delivered(outbox.take())
        outbox.take()
        moved.rename(path)
        now = 30.0
        outbox.commit()
        assert outbox.statistics().degraded is None
        assert rows(path) == [2, 3, 4]
    with DurableOutbox(path) as outbox:
        assert [(e.sequence_number, e.tries) for e in outbox._line] == [(2, 1), (3, 0), (4, 0)]


def test_logs_merged_while_the_disk_is_away_are_whole_when_it_is_back(path: Path) -> None:
    """Logs go out as one message and come back, while the file has only the first of them."""
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.put(error_log("one"))
        moved = path.rename(path.with_name("moved"))
        outbox.put(error_log("two"))
        assert len(taken(outbox)) == 1
        moved.rename(path)
        now = 30.0
        outbox.commit()
        assert outbox.statistics().degraded is None
        copy = crash(path, path.with_name("copy"))
    with DurableOutbox(copy) as outbox:
        text = outbox.take().text
        assert '"one"' in text
        assert '"two"' in text


def test_the_error_logs_of_a_dead_process_go_out_unchanged(path: Path, tmp_path: Path) -> None:
    """They may have been sent in that form, and what is sent again is the same."""
    with DurableOutbox(path) as outbox:
        outbox.put(error_log("a"))
        outbox.put(error_log("b"))
        copy = crash(path, tmp_path / "copy")
    with DurableOutbox(copy) as outbox:
        outbox.put(error_log("c"))
        assert list(map(texts_of, taken(outbox))) == [["a"], ["b"], ["c"]]


def test_what_was_set_aside_while_the_disk_failed_is_written_later(path: Path) -> None:
    """The reason why a message was given up is written when the disk is back."""
    now = 0.0
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.put(sample(1))
        outbox.commit()
        path.rename(path.with_name("moved"))
        outbox.set_aside(outbox.take(), "not understood")
        outbox.commit()
        assert outbox.statistics().degraded is not None
        now = 30.0
        outbox.commit()
        assert outbox.statistics().degraded is None
    assert [aside.reason for aside in summarize(path).set_aside] == ["not understood"]


# How much, how fast


def test_fifty_thousand_messages_open_in_no_time(path: Path) -> None:
    """The backlog of days is written in batches and read at once (0.4 s where it was measured)."""
    message = sample(1)
    with DurableOutbox(path) as outbox:
        for _ in range(50_000):
            outbox.put(message)
    started = time.perf_counter()
    with DurableOutbox(path) as outbox:
        assert time.perf_counter() - started < 5
        assert len(outbox) == 50_000


@pytest.mark.parametrize("count", [20_000, 40_000])
def test_a_file_above_its_bound_opens_in_time_linear_in_its_size_and_shrinks(
    path: Path, count: int
) -> None:
    """The bound was lowered to a quarter; this took 33 us a message where it was measured."""
    message = sample(1)
    with DurableOutbox(path, bytes_max=2**40) as outbox:
        for _ in range(count):
            outbox.put(message)
        bound = outbox.statistics().bytes_waiting // 4
    size = path.stat().st_size
    began = time.process_time()
    with DurableOutbox(path, bytes_max=bound) as outbox:
        assert time.process_time() - began < 300e-6 * count
        assert 0.5 * bound < outbox.statistics().bytes_waiting <= bound
        kept = len(outbox)
    assert len(numbers(path)) == kept
    assert path.stat().st_size < size / 3


def test_a_file_shrinks_when_what_waited_is_delivered(path: Path) -> None:
    """An outage of days has left the disk when it has left the line."""
    with DurableOutbox(path) as outbox:
        for number in range(40_000):
            outbox.put(sample(number))
        outbox.commit()
        largest = 0
        while outbox.head() is not None:
            for _ in range(2000):
                outbox.delivered(outbox.take())
            outbox.commit()
            largest = max(largest, path.stat().st_size)
        assert largest > 8e6
        assert path.stat().st_size < 1e6


def test_the_newest_thousand_messages_set_aside_are_kept(path: Path) -> None:
    """Of 1,005 the first 5 are dropped and counted."""
    with DurableOutbox(path) as outbox:
        for number in range(1005):
            outbox.put(sample(number))
            outbox.set_aside(outbox.take(), f"reason {number}")
        outbox.commit()
        assert len(rows(path, "set_aside")) == 1000
    summary = summarize(path)
    assert summary.set_aside_dropped == 5
    assert summary.set_aside[0].reason == "reason 5"


# What people can do


@pytest.fixture
def crashed(path: Path, tmp_path: Path) -> Path:
    """Return the file of a process that died in a run with four messages waiting."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Unit")
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.delivered(outbox.take())
        for number in range(3):
            outbox.put(sample(number))
        outbox.commit()  # what is under way for only a moment would not be written
        outbox.set_aside(outbox.take(), "not understood")
        outbox.take()
        outbox.put(event("hello"))
        outbox.put(sample(4))
        outbox.commit()
        return crash(path, tmp_path / "crashed")


def test_a_summary_tells_what_waits(crashed: Path) -> None:
    """Counts, sizes, the run, what was set aside and why; looking twice shows nothing changes."""
    for _ in range(2):
        summary = summarize(crashed)
        assert (summary.schema, summary.unit, summary.open_run) == (1, "host_Unit", "a")
        assert summary.counts == {"TagsUpdatedMsg": 3, "WebPushNotificationMsg": 1}
        assert (summary.waiting, summary.maybe_arrived) == (4, 1)
        assert summary.oldest is not None
        assert summary.newest is not None
        assert time.time() - 60 < summary.oldest <= summary.newest <= time.time()
        assert 0 < summary.bytes < summary.file_bytes
        (aside,) = summary.set_aside
        assert (aside.sequence_number, aside.kind) == (2, "TagsUpdatedMsg")
        assert aside.reason == "not understood"
    assert numbers(crashed) == [3, 4, 5, 6]


def test_an_export_holds_the_messages_as_they_would_be_sent(crashed: Path) -> None:
    """It has a line of JSON for each, in order, that decodes to the message."""
    file = io.StringIO()
    assert export(crashed, file) == 4
    messages = [decode_json(line) for line in file.getvalue().splitlines()]
    assert messages[0] == em.TagsUpdatedMsg(sequence_number=3, tags=sample(1).tags)
    assert [getattr(m, "sequence_number", None) for m in messages] == [3, 4, 5, 6]
    aside = io.StringIO()
    assert export(crashed, aside, set_aside=True) == 1
    assert json.loads(aside.getvalue())["sequence_number"] == 2


def test_discarding_keeps_the_numbers_and_the_run_that_must_be_ended(crashed: Path) -> None:
    """Nothing waits after it. The aggregator still has the run, so the next start ends it."""
    assert discard(crashed) == 4
    summary = summarize(crashed)
    assert (summary.counts, summary.set_aside, summary.open_run) == ({}, [], "a")
    with DurableOutbox(crashed) as outbox:
        assert outbox.run_id == "a"
        assert outbox.next_number() > 6


def test_a_state_flows_to_the_aggregator_whatever_is_on_the_disk(path: Path) -> None:
    """A run log is seldom written, so one that waited for the disk would be old."""
    with DurableOutbox(path) as outbox:
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        for number in range(3):
            outbox.put(em.RunLogMsg(id=str(number), run_id="a", runlog=mdl.RunLog(lines=[LINE])))
            outbox.commit()
            assert f'"id":"{number}"' in (outbox.state(em.RunLogMsg) or "")
        outbox.put(UNIT.create_run_stopped_msg("a"))
        assert outbox.state(em.RunLogMsg) is None


@pytest.mark.parametrize("lines", [20, 300, 1000])
def test_a_run_log_that_changes_all_the_time_writes_less_than_a_gigabyte_a_day(
    path: Path, lines: int
) -> None:
    """An hour of virtual time, committed twice a second; the bytes are counted at the file."""
    now, written = 0.0, 0
    rng = Random(1)
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        log = mdl.RunLog(
            lines=[
                evolve(LINE, id=f"{rng.getrandbits(128):032x}", start=rng.random())
                for _ in range(lines)
            ]
        )
        for step in range(7200):
            now = step / 2
            if step % 8 == 0:  # encoding takes the test's time
                outbox.put(em.RunLogMsg(id=str(step), run_id="a", runlog=log))
            outbox.commit()
            if step % 20 == 0:
                written += empty_log(outbox)
    assert 0 < written * 24 < 1e9


def empty_log(outbox: DurableOutbox) -> int:
    """Empty the write-ahead log into the file; return how much was written to both."""
    size = Path(f"{outbox.path}-wal").stat().st_size
    outbox._disk.file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return 2 * size


@pytest.mark.parametrize(
    "look",
    [summarize, lambda path: export(path, io.StringIO()), discard],
    ids=["summarize", "export", "discard"],
)
def test_looking_at_a_missing_file_does_not_make_it(
    path: Path, look: Callable[[Path], object]
) -> None:
    """Looking at nothing says so, and an empty file is no outbox."""
    with pytest.raises(OutboxNotFound, match="There is no outbox"):
        look(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(OutboxError, match="is not an outbox: it is empty"):
        look(path)


def test_a_unit_whose_name_only_ends_alike_is_another_one(path: Path) -> None:
    """Tank_1 of this computer is not Column_1 under another computer's name."""
    column, tank = Unit(name="Column_1"), Unit(name="Tank_1")
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Column_1", column.create_register_engine_msg())
        outbox.put(UNIT.create_wpn_run_paused_msg())
    with DurableOutbox(path) as outbox:
        with pytest.raises(OutboxOfAnotherUnit):
            outbox.claim("host_Tank_1", tank.create_register_engine_msg())
        assert len(outbox) == 1
        outbox.claim("other_Column_1", column.create_register_engine_msg())
        assert len(outbox) == 0  # they are in their own file


def test_what_a_recovered_disk_was_given_leaves_it_when_delivered(tmp_path: Path) -> None:
    """A recovering disk is given all that waits, even a sample under way, which then arrives."""
    now, disk = 0.0, SimulatedDisk(tmp_path, Random(1))
    with (
        disk.elsewhere(),
        DurableOutbox(disk.path, connect=disk.connect, clock=lambda: now) as outbox,
    ):
        outbox.commit_wanted = lambda: None
        outbox.put(sample(1))
        outbox.delivered(outbox.take())
        disk.is_full = True
        outbox.put(event("look"))
        outbox.commit()
        assert outbox.statistics().degraded is not None
        disk.is_full, now = False, 31.0
        outbox.put(sample(2))
        outbox.delivered(outbox.take())
        under_way = outbox.take()
        outbox.commit()
        assert outbox.statistics().degraded is None
        outbox.delivered(under_way)
        outbox.commit()
        outbox.commit_wanted = None
        assert rows(disk.path) == []
