"""The contract of every outbox: order, what is in flight, the bound, and use from threads."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from attrs import define, evolve, field

from tests.helpers.unit import Unit
from trio_runner import DurableOutbox, MemoryOutbox
from trio_runner._outbox import (
    DELIVERY,
    ENTRY_BYTES,
    MESSAGE_BYTES_MAX,
    OUTBOX_BYTES_MAX,
    Delivery,
    Entry,
    Outbox,
    _entry,
    _line,
)
from trio_runner._outbox._logs import WaitingLogs
from trio_runner._outbox._thinning import every_second_of_the_densest
from trio_runner.protocol import decode_json, encode, encode_body, foreign, loads, pack, unpack
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

UNIT = Unit(clock=lambda: 0.0)

LINE = mdl.RunLogLine(
    id="1",
    command_name="Mark: A",
    start=0.0,
    end=None,
    progress=None,
    start_values=[],
    end_values=[],
)

Make = Callable[..., Outbox]


@pytest.fixture(params=["memory", "durable"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes the outbox; each test runs with both kinds."""
    made: list[Outbox] = []

    def make(bytes_max: int = OUTBOX_BYTES_MAX) -> Outbox:
        if request.param == "memory":
            return MemoryOutbox(bytes_max)
        made.append(DurableOutbox(tmp_path / f"{len(made)}.outbox", bytes_max=bytes_max))
        return made[-1]

    yield make
    for outbox in made:
        outbox.close()


def sample(number: int) -> em.TagsUpdatedMsg:
    """Return a sample whose one tag has a value of six digits."""
    tag = mdl.TagValue(name="Count", tick_time=1.0, value=100_000 + number, value_unit="")
    return em.TagsUpdatedMsg(tags=[tag])


def event(text: str) -> em.WebPushNotificationMsg:
    return UNIT.create_wpn_notify_command_msg(text)


SAMPLE_BYTES = len(pack(encode_body(sample(0)))) + ENTRY_BYTES + 9
"""The room that a sample takes; their digits compress to within 9 bytes of each other."""


def taken(outbox: Outbox) -> list[Entry]:
    """Take everything that waits."""
    entries = []
    while (head := outbox.head()) is not None:
        assert outbox.make_ready(head)
        entries.append(outbox.take())
    return entries


def waiting(outbox: Outbox) -> list[int]:
    """Take everything that waits, and return its sequence numbers."""
    return [entry.sequence_number for entry in taken(outbox)]


def test_every_message_of_an_engine_has_a_delivery_class() -> None:
    """The table covers all messages except those that no runner sends."""
    messages = {
        kind
        for kind in vars(em).values()
        if isinstance(kind, type) and issubclass(kind, em.EngineMessage)
    }
    bases = {"EngineMessage", "EngineControlMessage", "EngineDataMessage"}
    not_sent = bases | {"PingMsg", "TagsBufferedMsg"}
    assert {kind.__name__ for kind in messages - DELIVERY.keys()} == not_sent


def test_a_message_that_a_runner_does_not_send_is_refused(make: Make) -> None:
    """A registration in the outbox is a bug of the caller, which hears of it at once."""
    with pytest.raises(TypeError, match="PingMsg is not a message that a runner sends"):
        make().put(em.PingMsg())


def test_what_was_in_flight_returns_to_the_head_in_order(make: Make) -> None:
    """After a rewind the unanswered messages come first, with their old numbers."""
    outbox = make()
    for number in range(5):
        outbox.put(sample(number))
    first, second, third = outbox.take(), outbox.take(), outbox.take()
    outbox.delivered(second)
    outbox.rewind()
    assert waiting(outbox) == [first.sequence_number, third.sequence_number, 4, 5]


def test_the_open_run_is_the_one_that_the_aggregator_knows(make: Make) -> None:
    """A run opens when RunStarted is delivered, not when it is put in; it ends likewise."""
    outbox = make()
    unit = UNIT
    outbox.put(unit.create_run_started_msg("a", 1.0))
    outbox.put(unit.create_run_stopped_msg("a"))
    started = outbox.take()
    assert outbox.open_run is None
    outbox.delivered(started)
    assert outbox.open_run is started
    stopped = outbox.take()
    assert outbox.open_run is started
    outbox.delivered(stopped)
    assert outbox.open_run is None


def test_only_the_latest_state_is_kept_and_a_run_log_only_within_its_run(make: Make) -> None:
    """States wait outside the line, and the log of a run does not outlive the run."""
    outbox, unit = make(), UNIT
    outbox.put(em.MethodMsg(method=mdl.Method(version=1, lines=[])))
    outbox.put(em.MethodMsg(method=mdl.Method(version=2, lines=[])))
    outbox.put(unit.create_runlog_msg("a"))
    assert len(outbox) == 0
    assert '"version":2' in (outbox.state(em.MethodMsg) or "")
    assert outbox.state(em.RunLogMsg) is not None
    outbox.put(unit.create_run_stopped_msg("a"))
    assert outbox.state(em.RunLogMsg) is None


def test_at_the_bound_every_second_sample_of_the_oldest_half_is_dropped(make: Make) -> None:
    """When 8 samples fit, the 9th thins the oldest half once, and the newest stay whole."""
    outbox = make(bytes_max=8 * SAMPLE_BYTES)
    for number in range(9):
        outbox.put(sample(number))
    # Of 9 samples the oldest half are 4 (numbers 1 to 4), of which the 2nd and the 4th are dropped.
    statistics = outbox.statistics()
    assert (statistics.thinned, statistics.waiting) == (2, 7)
    entries = [outbox.take() for _ in range(7)]
    assert [entry.sequence_number for entry in entries] == [1, 3, 5, 6, 7, 8, 9]
    assert statistics.bytes_waiting == sum(len(entry.body) + ENTRY_BYTES for entry in entries)


def test_three_days_leave_an_even_picture_and_a_whole_last_hour(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """72 h without an aggregator, for a unit of 20 tags that is sampled every 1.1 s, in 64 MiB.

    The test is quick because it is scaled by 100: a sample every 110 s, in 64 MiB / 100.
    """
    outbox, rng, times = make(64 * 1024 * 1024 // 100), Random(1), dict[int, int]()
    for number, time_s in enumerate(range(0, 72 * 3600, 110), 1):
        tags = [
            mdl.TagValue(name=f"FT{n:02}", tick_time=time_s, value=rng.random(), value_unit="L/h")
            for n in range(20)
        ]
        outbox.put(em.TagsUpdatedMsg(tags=tags))
        times[number] = time_s
    kept = [times[number] for number in waiting(outbox)]
    hours = [sum(time_s // 3600 == hour for time_s in kept) for hour in range(72)]
    # An hour has 32 or 33 samples. Thinned by 8 it has 4 or 5, which lie 8 * 110 s apart.
    assert hours[-1] in (32, 33)
    assert min(hours) >= 4
    assert max(b - a for a, b in pairwise(kept)) <= 8 * 110
    assert outbox.statistics().thinned == len(times) - len(kept)
    assert sum("has reached its bound" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize("count", [40, 70, 100, 150])
def test_if_events_leave_room_for_few_samples_these_are_still_spread_out(
    make: Make, count: int
) -> None:
    """Seed 524: of 60 samples, all except the first and the last ten were given up."""
    events = [event(str(number)) for number in range(20)]
    room = MemoryOutbox()
    for message in events:
        room.put(message)
    outbox = make(bytes_max=room.statistics().bytes_waiting + 12 * SAMPLE_BYTES)
    for number in range(count):
        outbox.put(sample(number))
        if number % 2 and events:
            outbox.put(events.pop())
    kept = [entry.sequence_number for entry in taken(outbox) if not entry.is_event]
    # There are at least five gaps in the older half. None exceeds 8/3 of the mean of its time.
    assert max(b - a for a, b in pairwise(kept)) <= 8 / 3 * (count + 20) / 5


def test_repeated_thinning_keeps_the_first_the_last_and_every_event(make: Make) -> None:
    """10,000 samples in the room of 100: bounded, counted exactly, the oldest and newest remain."""
    outbox = make(bytes_max=100 * SAMPLE_BYTES)
    events = 0
    for number in range(10_000):
        outbox.put(sample(number))
        if number % 1000 == 0:
            outbox.put(event(str(number)))
            events += 1
        assert outbox.statistics().bytes_waiting <= outbox.bytes_max
    statistics = outbox.statistics()
    assert statistics.samples_taken == 10_000
    assert statistics.events_taken == events == 10
    assert statistics.waiting == 10_000 + events - statistics.thinned
    entries = []
    while outbox.head() is not None:
        entries.append(outbox.take())
    assert sum(entry.is_event for entry in entries) == events
    numbers = [entry.sequence_number for entry in entries]
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert numbers[-30:] == list(range(10_010 - 29, 10_011))


def test_what_may_have_arrived_is_not_given_up(make: Make) -> None:
    """A sample of unknown outcome stays, so that the count of lost samples is exact."""
    outbox = make(bytes_max=4 * SAMPLE_BYTES)
    for number in range(4):
        outbox.put(sample(number))
    for _ in range(3):
        outbox.take()
    outbox.rewind()
    for number in range(4, 7):
        outbox.put(sample(number))
    assert waiting(outbox)[:3] == [1, 2, 3]


@pytest.mark.parametrize(
    ("numbers", "given_up"),
    [
        ([], []),
        ([1], []),
        ([1, 2], [2]),  # no sample follows the last one: its gap is that to the first
        ([1, 2, 3], [2]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [2, 4]),
        # The gaps of 2, 3, 6 and 7 are 2, 4, 4 and 11: a quarter, and those as narrow, go up to 4.
        ([1, 2, 3, 6, 7, 17, 18, 19, 20, 21], [2, 6]),
    ],
)
def test_of_samples_those_with_the_narrowest_gaps_go_and_never_two_in_a_row(
    numbers: list[int], given_up: list[int]
) -> None:
    """A quarter of the older half, with as many as lie no less densely."""
    samples = [Entry(number, em.TagsUpdatedMsg, b"", 0.0) for number in numbers]
    gone = every_second_of_the_densest(samples)
    assert [entry.sequence_number for entry in gone] == given_up


def test_only_events_may_exceed_the_bound(make: Make) -> None:
    """Events are never given up, whatever the bound."""
    outbox = make(bytes_max=1)
    for number in range(50):
        outbox.put(event(str(number)))
    assert len(outbox) == 50


def test_if_events_alone_exceed_the_bound_the_line_is_rarely_searched(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put costs the same however long the line is, and of the samples only a few stay."""
    looks = [0]

    def counted(samples: list[Entry]) -> list[Entry]:
        looks[0] += 1
        return every_second_of_the_densest(samples)

    monkeypatch.setattr(_line, "every_second_of_the_densest", counted)
    outbox = make(bytes_max=1)
    for number in range(320):
        outbox.put(event(str(number)))
    assert looks[0] == 0
    for number in range(1000):
        outbox.put(sample(number))
    assert looks[0] < 400
    assert outbox.statistics().waiting < 320 + 50


@pytest.mark.parametrize(("events", "thinned"), [(14, 1), (15, 0)])
def test_thinning_begins_where_one_message_of_eight_can_go(
    make: Make, events: int, thinned: int
) -> None:
    """2 of 16 are enough, 2 of 17 are not."""
    outbox = make(bytes_max=1)
    for number in range(events):
        outbox.put(event(str(number)))
    outbox.put(sample(1))
    outbox.put(sample(2))
    assert outbox.statistics().thinned == thinned


def test_a_retried_message_goes_first_and_a_message_set_aside_is_counted(make: Make) -> None:
    """Of two in flight, the failed one returns to the head, and the refused one leaves the line."""
    outbox = make()
    for number in range(3):
        outbox.put(sample(number))
    first = outbox.take()
    outbox.retry(first, 0)
    assert outbox.take() is first
    outbox.set_aside(first, "not understood")
    assert outbox.statistics().set_aside == 1
    assert waiting(outbox) == [2, 3]


def test_retried_messages_keep_their_order(make: Make) -> None:
    """Whichever of five in flight returns first, the oldest is sent again first."""
    outbox = make()
    for number in range(7):
        outbox.put(sample(number))
    entries = [outbox.take() for _ in range(5)]
    outbox.retry(entries[0], 0)
    outbox.retry(entries[3], 0)
    outbox.retry(entries[1], 0)
    outbox.rewind()
    assert waiting(outbox) == [1, 2, 3, 4, 5, 6, 7]


@define
class Timed:
    """A lock that knows for how long it was held (s)."""

    held_s: float = 0
    _lock: threading.RLock = field(factory=threading.RLock)
    _since: float = 0

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._since = time.perf_counter()
        return True

    def __exit__(self, *_: object) -> None:
        self.held_s += time.perf_counter() - self._since
        self._lock.release()


def test_the_end_of_a_run_is_put_together_without_the_lock() -> None:
    """A run log of megabytes takes a part of a second to read, and Trio's thread needs the lock."""
    outbox = MemoryOutbox()
    outbox.put(UNIT.create_run_started_msg("run", 0))
    log = mdl.RunLog(lines=[LINE] * 10_000)
    outbox.put(em.RunLogMsg(id="", run_id="run", runlog=log))
    outbox._lock = lock = Timed()  # type: ignore[assignment]
    began = time.perf_counter()
    assert len(loads(encode_body(outbox.end_of_run()))["runlog"]["lines"]) == 10_000
    assert lock.held_s < (time.perf_counter() - began) / 20


def test_a_run_that_is_not_resumed_is_closed_with_its_last_run_log(make: Make) -> None:
    """The end comes after all that waits, with the run log and method state that were put last."""
    outbox = make()
    outbox.close_run()
    assert len(outbox) == 0
    outbox.put(UNIT.create_run_started_msg("a", 1.0))
    outbox.put(em.RunLogMsg(id="", run_id="a", runlog=mdl.RunLog(lines=[LINE])))
    state = evolve(UNIT.create_method_state_msg().method_state, started_line_ids=["7"])
    outbox.put(em.MethodStateMsg(method_state=state))
    outbox.put(sample(1))
    outbox.close_run()
    assert outbox.run_id is None
    outbox.close_run()
    entries = [outbox.take() for _ in range(3)]
    assert outbox.head() is None
    assert decode_json(entries[2].text) == em.RunStoppedMsg(
        run_id="a",
        runlog=mdl.RunLog(lines=[LINE]),
        method_state=state,
        archive=None,
        archive_filename=None,
    )


def test_the_run_log_of_another_run_does_not_close_this_one(make: Make) -> None:
    """A run without a run log is closed with an empty one."""
    outbox = make()
    outbox.put(UNIT.create_run_started_msg("b", 1.0))
    outbox.put(em.RunLogMsg(id="", run_id="a", runlog=mdl.RunLog(lines=[LINE])))
    outbox.close_run()
    outbox.take()
    message = decode_json(outbox.take().text)
    assert isinstance(message, em.RunStoppedMsg)
    assert (message.run_id, message.runlog.lines) == ("b", [])


def test_messages_of_each_thread_keep_their_order(make: Make) -> None:
    """Eight threads put 200 events each: none is lost, and those of each thread are in order."""
    outbox = make()

    def put(thread: int) -> None:
        for number in range(200):
            outbox.put(event(f"{thread}:{number}"))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen: dict[str, list[int]] = {}
    while outbox.head() is not None:
        body = outbox.take().text
        thread_number, number = body.split('"body":"')[1].split('"')[0].split(":")
        seen.setdefault(thread_number, []).append(int(number))
    assert seen == {str(n): list(range(200)) for n in range(8)}


def test_delivery_classes_are_those_of_the_design() -> None:
    """Runs begin and end with events; notices are what people must hear; samples are tags."""
    events = {kind for kind, delivery in DELIVERY.items() if delivery is Delivery.RUN_EVENT}
    assert events == {em.RunStartedMsg, em.RunStoppedMsg}
    notices = {kind for kind, delivery in DELIVERY.items() if delivery is Delivery.NOTICE}
    assert notices == {em.WebPushNotificationMsg, em.ErrorLogMsg}


def error_log(*texts: str) -> em.ErrorLogMsg:
    entries = [mdl.ErrorLogEntry(message=text, created_time=1.0, severity=40) for text in texts]
    return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries))


def texts_of(entry: Entry) -> list[str]:
    return [told["message"] for told in loads(entry.text)["log"]["entries"]]


def test_what_is_logged_while_a_log_waits_goes_out_with_it_up_to_the_next_run_event(
    make: Make,
) -> None:
    """They pass samples and notifications. What is logged after a run event stays after it."""
    outbox = make()
    begin = em.RunStartedMsg(run_id="a", started_tick=1.0)
    logs = [error_log(text) for text in "abcd"]
    for message in (logs[0], sample(1), logs[1], event("look"), logs[2], begin, logs[3]):
        outbox.put(message)
    first, *others = taken(outbox)
    assert texts_of(first) == ["a", "b", "c"]
    assert [entry.sequence_number for entry in others] == [2, 4, 6, 7]  # 3 and 5 went with 1
    assert outbox.statistics().merged == 2


def test_the_end_of_a_run_that_is_too_big_is_taken_in_without_its_archive() -> None:
    """An archive of 17 MB is more than the aggregator takes."""
    end = em.RunStoppedMsg(
        run_id="a",
        runlog=mdl.RunLog(lines=[LINE]),
        method_state=mdl.MethodState.untouched(),
        archive="x" * 17_000_000,
        archive_filename="a.csv",
    )
    outbox = MemoryOutbox()
    outbox.put(end)
    assert decode_json(outbox.take().text) == evolve(end, archive=None, archive_filename=None)
    assert outbox.statistics().archives_left_out == 1


@pytest.mark.parametrize("name", ["start_values", "end_values"])
def test_the_end_of_a_run_that_is_refused_loses_first_what_matters_least(
    make: Make, name: str
) -> None:
    """Its archive, the values in its run log, the run log's lines; then it is set aside."""
    value = mdl.TagValue(name="Flow", tick_time=1.0, value=1, value_unit="L/h")
    values = {
        "start_values": list[mdl.TagValue](),
        "end_values": list[mdl.TagValue](),
        name: [value],
    }
    line = evolve(LINE, start_values=values["start_values"], end_values=values["end_values"])
    end = em.RunStoppedMsg(
        run_id="a",
        runlog=mdl.RunLog(lines=[LINE, line]),
        method_state=mdl.MethodState.untouched(),
        archive="1,2,3",
        archive_filename="a.csv",
    )
    outbox, went_out = make(), list[object]()
    outbox.put(end)
    while (head := outbox.head()) is not None:
        went_out.append(decode_json(outbox.take().text))
        outbox.refused(head, "too much")
    without_archive = evolve(end, archive=None, archive_filename=None)
    without_values = evolve(without_archive, runlog=mdl.RunLog(lines=[LINE, LINE]))
    without_lines = evolve(without_archive, runlog=mdl.RunLog(lines=[]))
    assert went_out == [end, without_archive, without_values, without_lines]
    assert outbox.statistics().set_aside == 1
    assert outbox.statistics().archives_left_out == 1


def test_an_error_log_of_another_shape_goes_out_as_it_is(make: Make) -> None:
    """Another version of the engine's package may have made it."""
    outbox = make()
    odd = foreign({**encode(error_log("odd")), "log": "?"}, em.ErrorLogMsg)
    for message in (error_log("a"), error_log("b"), odd, error_log("c")):
        outbox.put(message)
    assert waiting(outbox) == [1, 3, 4]


def test_error_logs_that_stood_aside_go_out_with_the_first_of_them(make: Make) -> None:
    """Samples have passed them meanwhile."""
    outbox = make()
    for message in (error_log("a"), error_log("b"), sample(1)):
        outbox.put(message)
    outbox.let_pass()
    outbox.let_pass()
    outbox.put(error_log("c"))
    first = outbox.next_aside()
    assert outbox.make_ready(first)
    assert texts_of(outbox.take_aside(first)) == ["a", "b", "c"]
    assert not outbox.has_aside
    assert waiting(outbox) == [3]


def test_of_what_stands_aside_the_first_without_a_pause_goes_or_what_is_due_first(
    make: Make,
) -> None:
    """One that has failed lets those pass that have not."""
    outbox = make()
    for text in "abc":
        outbox.put(event(text))
        outbox.let_pass()
    went, due_at = list[int](), [30.0, 10.0, 20.0, 40.0, 40.0]
    for at in due_at:
        entry = outbox.take_aside(outbox.next_aside())
        went.append(entry.sequence_number)
        outbox.retry(entry, at)
    assert went == [1, 2, 3, 2, 3]
    assert outbox.next_aside().sequence_number == 1


@pytest.mark.parametrize(
    ("kind", "links", "failures", "is_alone"),
    [
        (em.ErrorLogMsg, 0, 0, False),
        (em.ErrorLogMsg, 0, 9, False),  # its answers say that it ends no link
        (em.ErrorLogMsg, 1, 0, False),  # once is no sign
        (em.ErrorLogMsg, 1, 1, True),
        (em.ErrorLogMsg, 2, 0, True),
        (em.TagsUpdatedMsg, 0, 0, False),
        (em.TagsUpdatedMsg, 1, 0, False),
        (em.TagsUpdatedMsg, 0, 1, True),  # after newer ones it would not be stored
        (em.RunStartedMsg, 0, 0, True),
    ],
)
def test_what_may_be_why_links_end_goes_alone(
    kind: type[em.EngineMessage], links: int, failures: int, is_alone: bool
) -> None:
    """So do run events, and samples that have failed."""
    entry = Entry(1, kind, b"", 0.0, links=links, failures=failures)
    assert entry.goes_alone is is_alone


def test_logs_that_are_forgotten_are_merged_with_no_other() -> None:
    """Also one that is not on disk yet."""
    logs, first, second = WaitingLogs(), *(Entry(n, em.ErrorLogMsg, b"", 0.0) for n in (1, 2))
    first.is_queued = False
    logs.add(first, 2_000_000)
    assert logs.are_many
    assert logs.take() == []
    logs.clear()
    assert not logs.are_many
    logs.add(second, 1)
    assert logs.take() == [second]


def test_an_error_log_that_waits_is_bounded_in_characters() -> None:
    """Of 3,000 entries of 10 kB the first and the last half MiB are kept; 1.5 MiB wait at most."""
    outbox = MemoryOutbox()
    for number in range(3000):
        outbox.put(error_log(f"{number:04}" + "x" * 10_000))
        if number % 100 == 0:
            waits = sum(len(entry.text) for entry in outbox._waiting())
            # The last two that were put in make it too much.
            assert waits < 1.5 * 1024 * 1024 + 2 * 10_150
    entry, *others = taken(outbox)
    assert not others
    assert len(entry.text) <= 1024 * 1024
    # An entry has 10,056 characters in the log, so 52 are 522,912, and 53 are over 524,288.
    texts = [text[:4] for text in texts_of(entry)]
    assert texts[:52] == [f"{number:04}" for number in range(52)]
    assert texts_of(entry)[52] == "2896 entries of the error log are left out here"
    assert texts[53:] == [f"{number:04}" for number in range(2948, 3000)]


def test_an_error_log_that_is_alone_is_bounded_in_entries(make: Make) -> None:
    """Of 1,001 entries that are logged at once, one is left out of the middle."""
    outbox = make()
    outbox.put(error_log(*map(str, range(1001))))
    texts = texts_of(taken(outbox)[0])
    assert texts[:500] == [str(number) for number in range(500)]
    assert texts[500] == "1 entries of the error log are left out here"
    assert texts[501:] == [str(number) for number in range(501, 1001)]


def test_an_entry_that_is_far_too_long_is_cut(make: Make) -> None:
    """It is cut to 256 KiB. Of many that are logged at once, the middle is left out."""
    outbox = make()
    outbox.put(error_log("x" * 2_000_000))
    outbox.put(error_log(*map(str, range(3000))))
    texts = texts_of(taken(outbox)[0])
    assert texts[0] == "x" * 262_144 + "..."
    assert texts[1:500] == [str(number) for number in range(499)]
    assert texts[500] == "2001 entries of the error log are left out here"
    assert texts[501:] == [str(number) for number in range(2500, 3000)]


def test_logging_costs_the_same_however_much_waits() -> None:
    """What waits is touched only when some of it must be left out."""
    outbox = MemoryOutbox()
    outbox.put(error_log("0"))
    first = outbox._waiting()[0]
    before = first.body
    for number in range(1, 1500):
        outbox.put(error_log(str(number)))
    assert len(outbox) == 1500
    assert first.body is before
    outbox.put(error_log("1500"))
    assert len(outbox) == 2
    assert outbox.statistics().merged == 1499


def test_the_size_of_a_body_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that may be too big is unpacked when it is first asked, and again after a change."""
    unpacked: list[bytes] = []

    def noted(body: bytes) -> str:
        unpacked.append(body)
        return unpack(body)

    monkeypatch.setattr(_entry, "unpack", noted)
    hard_to_pack = Random(0).randbytes(20_000).hex()
    small, large = (
        pack(f'{{"a": "{hard_to_pack}{filling}"}}') for filling in ("", "x" * MESSAGE_BYTES_MAX)
    )
    entry = Entry(1, em.TagsUpdatedMsg, small, taken_at=0)
    assert not entry.is_too_big
    assert not entry.is_too_big
    entry.replace(large)
    assert entry.is_too_big
    assert entry.is_too_big
    assert unpacked == [small, large]


def test_the_oldest_message_counts_as_such_while_it_is_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is tried again is in flight after newer ones."""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    outbox = make()
    outbox.put(event("old"))
    monkeypatch.setattr("time.time", lambda: 1100.0)
    outbox.retry(outbox.take(), due_at=0)
    outbox.put(sample(1))
    outbox.take()
    assert outbox.statistics().oldest_s == 100
    outbox.take_aside(outbox.next_aside())
    assert outbox.statistics().oldest_s == 100
