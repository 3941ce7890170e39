"""Situations that the oracle must not mistake for a broken promise, as it once did in each case.

The mutants show that it finds promises that are really broken.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import trio
from attrs import evolve

from trio_runner import MemoryOutbox, OutboxStatistics
from trio_runner.protocol import ErrorMessage, MessageBase, SuccessMessage, encode_body
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._watched_link import SAMPLE, WatchedLink

BOUND = 20_000
OTHER_RUN = "of run b, but run a is active"
ALL_STATES = "ControlStateMsg, MethodMsg, MethodStateMsg, UodInfoMsg"
NOTHING: OutboxStatistics = MemoryOutbox().statistics()


def the_oracle(*, durable: bool = True) -> Oracle:
    """Return an oracle that has seen a process start, with a disk or with memory only."""
    oracle = Oracle(Trace(), lambda _: None, steady_s=1)
    oracle.begin_life(durable=durable, outbox=NOTHING)
    return oracle


def sample(number: int) -> em.TagsUpdatedMsg:
    """Return a sample with this number as its value."""
    tag = mdl.TagValue(name="Count", tick_time=float(number), value=number, value_unit="")
    return em.TagsUpdatedMsg(run_id=None, tags=[tag])


async def twenty_samples_offline() -> Oracle:
    """Return an oracle that has seen 20 samples, a second apart, and no link."""
    oracle = the_oracle()
    oracle.change_state("Started", "Failed")
    for number in range(20):
        await trio.sleep(1)
        oracle.make(sample(number))
    return oracle


def introduce(link: WatchedLink) -> None:
    """Let the oracle believe that a link has had its first two messages."""
    link.messages = 2
    link.taken.add("UodInfoMsg")


def events(number: int) -> list[em.EngineMessage]:
    """Return this many notifications, all different."""
    topic = mdl.NotificationTopic.RUN_PAUSE
    bodies = [mdl.WebPushNotification(title="", body=f"event {i}") for i in range(number)]
    return [em.WebPushNotificationMsg(notification=body, topic=topic) for body in bodies]


def started(run_id: str) -> em.RunStartedMsg:
    """Return the beginning of a run."""
    return em.RunStartedMsg(run_id=run_id, started_tick=0.0)


def stopped(run_id: str) -> em.RunStoppedMsg:
    """Return the end of a run."""
    return em.RunStoppedMsg(
        run_id=run_id,
        runlog=mdl.RunLog(lines=[]),
        method_state=mdl.MethodState.untouched(),
        archive=None,
        archive_filename=None,
    )


@pytest.mark.parametrize(
    ("degraded", "violation"),
    [("full", None), (None, f"the aggregator refused TagsUpdatedMsg: {OTHER_RUN}")],
)
async def test_after_a_run_is_lost_with_a_full_disk_the_one_before_it_is_still_on(
    degraded: str | None, violation: str | None
) -> None:
    """Seed 1097: the power failed while the disk was full, and later refusals were right."""
    oracle = the_oracle()
    oracle.make(sample(1))
    oracle.end_life(
        "killed",
        durable=True,
        outbox=evolve(NOTHING, samples_taken=1, waiting=1, degraded=degraded),
    )
    oracle.receive(sample(1), 1, OTHER_RUN)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("answer", "violation"),
    [(ErrorMessage(message="never"), None), (None, "RunStopped b came while a was on")],
)
async def test_the_end_of_a_run_whose_beginning_was_set_aside_may_end_another_run(
    answer: ErrorMessage | None, violation: str | None
) -> None:
    """Seed 1035: an aggregator that refused everything for a while missed the run's beginning."""
    oracle = the_oracle()
    oracle.make(started("a"))
    oracle.make(started("b"))
    oracle.make(stopped("b"))
    oracle.receive(started("a"), 1, None)
    link = oracle.open_link()
    if answer is not None:
        # This is not one of a link's first two messages, but that rule does not matter here.
        introduce(link)
        oracle.send(link, 2, encode_body(started("b")))
        oracle.answer(link, 2, answer)
    oracle.receive(stopped("b"), 1, None)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("events_waiting", "waiting", "violation"),
    [
        # Seeds 524, 1028 and 4539: bursts of events, or long events, left room for few samples.
        pytest.param(43, 12 + 43, None, id="few"),
        pytest.param(3, 12 + 3, None, id="few beside long events"),
        pytest.param(0, 13, "8 samples in a row were given up, but few beside them", id="more"),
        pytest.param(5, 18, "8 samples in a row were given up, but few beside them", id="beside"),
    ],
)
async def test_if_few_samples_have_room_they_may_lie_far_apart(
    events_waiting: int, waiting: int, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """Six samples spread evenly over half a minute may leave a hole of eight."""
    oracle = the_oracle()
    oracle.change_state("Started", "Failed")
    samples = waiting - events_waiting + 8
    for number in range(samples):
        await trio.sleep(1)
        oracle.make(sample(number))
    for event in events(events_waiting):
        oracle.make(event)
    taken = evolve(NOTHING, samples_taken=samples, events_taken=events_waiting)
    oracle.check_second(evolve(taken, thinned=8, waiting=waiting), BOUND, 1000)
    for number in [*range(6), *range(14, samples)]:
        oracle.receive(sample(number), 1, None)
    oracle.thinned = 8
    oracle.excused.update(key for key in oracle.made if key[0] == "notification")
    oracle.check_end(NOTHING)
    assert oracle.violation == violation


async def test_an_arrival_after_a_burst_does_not_hide_that_the_burst_drove_samples_out(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Seed 12: the burst was already on its way when the oracle looked, a second later."""
    oracle = await twenty_samples_offline()
    oracle.check_second(evolve(NOTHING, samples_taken=20, waiting=20), BOUND, 1000)
    burst = events(43)
    for event in burst:
        oracle.make(event)
    oracle.receive(sample(0), 1, None)
    oracle.receive(burst[0], 1, None)
    taken = evolve(NOTHING, samples_taken=20, events_taken=43)
    oracle.check_second(evolve(taken, thinned=19, waiting=42, delivered=2), BOUND, 1000)
    oracle.thinned = 19
    oracle.excused.update(key for key in oracle.made if key[0] == "notification")
    oracle.check_end(NOTHING)
    assert oracle.violation is None


async def test_samples_thinned_after_a_hole_show_that_the_hole_was_not_cut_out(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Seed 118: a burst of events came after the hole and hid the thinned samples there."""
    oracle = await twenty_samples_offline()
    for number in (0, 1, 10):  # 8 in a row are gone
        oracle.receive(sample(number), 1, None)
    taken = evolve(NOTHING, samples_taken=20)
    oracle.check_second(evolve(taken, thinned=12, waiting=5, delivered=3), BOUND, 1000)
    for number in range(11, 20, 2):
        oracle.receive(sample(number), 1, None)
    oracle.thinned = 8 + 4
    oracle.check_end(NOTHING)
    assert oracle.violation is None


@pytest.mark.parametrize(
    ("run_id", "violation"),
    [("a", None), ("b", f"the aggregator refused TagsUpdatedMsg: {OTHER_RUN}")],
)
async def test_a_beginning_that_arrives_after_its_process_died_has_no_end(
    run_id: str, violation: str | None
) -> None:
    """Seed 3829: the run began on the wire, and its end was lost with the power."""
    oracle = the_oracle(durable=False)
    oracle.make(started("a"))
    oracle.end_life("killed", durable=False, outbox=evolve(NOTHING, events_taken=1, waiting=1))
    oracle.begin_life(durable=False, outbox=NOTHING)
    oracle.make(started("b"))
    oracle.receive(started(run_id), 1, None)
    oracle.make(sample(1))
    oracle.receive(sample(1), 1, OTHER_RUN)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("event_at_s", "answer_s", "violation"),
    [
        # Seed 90: handling an event took as long as the engine took to make the next.
        pytest.param(range(16), 1.0, None, id="slow"),
        # Seeds 484 and 871: events came quickly, and the answer to the last was lost.
        pytest.param([1], math.inf, None, id="lost"),
        pytest.param([1], 0.1, f"{ALL_STATES} was not sent on this link", id="quick"),
        pytest.param([], 0.1, f"{ALL_STATES} was not sent on this link", id="none"),
    ],
)
async def test_a_state_may_have_to_wait_for_the_answer_to_an_event(
    event_at_s: Sequence[int],
    answer_s: float,
    violation: str | None,
    autojump_clock: trio.abc.Clock,
) -> None:
    """A state message must not overtake a run event, which it may be about."""
    oracle = the_oracle()
    oracle.change_state("Started", "Connected")
    link = oracle.open_link()
    introduce(link)
    ends = iter([stopped(f"run-{number}") for number in range(16)])
    answered_at = math.inf
    for second in range(16 if answer_s < math.inf else 8):  # a link would end after 10 s
        if trio.current_time() >= answered_at:
            oracle.answer(link, second, SuccessMessage())
            answered_at = math.inf
        if second in event_at_s:
            event = next(ends)
            oracle.make(event)
            oracle.send(link, second + 1, encode_body(event))
            answered_at = trio.current_time() + answer_s
        waiting = sum(1 for key in oracle.made if key[0] != SAMPLE and key not in oracle._answered)
        oracle.make(sample(second))
        oracle.check_second(evolve(NOTHING, events_taken=waiting, waiting=waiting), BOUND, 1000)
        await trio.sleep(1)
    assert oracle.violation == violation


async def test_an_event_that_a_failed_disk_brings_back_may_wait_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Seed 535: its answer was only in memory, so state messages had to wait for it once more."""
    oracle = the_oracle()
    event = stopped("a")
    lives = (
        evolve(NOTHING, events_taken=1, delivered=1, degraded="full"),
        evolve(NOTHING, waiting=1),
    )
    for life, outbox in enumerate(lives):
        if life:
            oracle.end_life("killed", durable=True, outbox=lives[0])
            oracle.begin_life(durable=True, outbox=outbox)
        else:
            oracle.make(event)
        oracle.change_state("Started", "Connected")
        link = oracle.open_link()
        introduce(link)
        oracle.send(link, 1, encode_body(event))
        if not life:
            oracle.answer(link, 1, SuccessMessage())
            oracle.check_second(outbox, BOUND, 1000)
    for second in range(8):
        oracle.make(sample(second))
        oracle.check_second(lives[1], BOUND, 1000)
        await trio.sleep(1)
    assert oracle.violation is None


async def test_steady_state_is_counted_from_its_beginning_on_this_link(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Seed 3423: a link that reached steady state within a second was mistaken for the old one."""
    oracle = the_oracle()
    oracle.change_state("Started", "Connected")
    link = oracle.open_link()
    link.told.update(ALL_STATES.split(", "))
    oracle.states_told.shown = False
    for second in range(8):
        oracle.make(sample(second))
        oracle.check_second(NOTHING, BOUND, 1000)
        await trio.sleep(1)
    oracle.close_link(link)
    path = "Connected Failed Disconnected Reconnecting CatchingUp Reconnected"
    oracle.open_link()
    for before, after in pairwise(path.split()):
        oracle.change_state(before, after)
    oracle.make(sample(8))
    oracle.check_second(NOTHING, BOUND, 1000)
    assert oracle.violation is None


@pytest.mark.parametrize(
    ("answer", "found", "violation"),
    [
        (ErrorMessage(message="never"), None, None),
        (ErrorMessage(message="never"), "a", "the outbox knows run a, but None was on"),
        (SuccessMessage(), "a", None),
        (SuccessMessage(), None, "the outbox knows run None, but a was on"),
    ],
)
async def test_a_run_whose_beginning_was_set_aside_is_not_known_after_a_crash(
    answer: MessageBase, found: str | None, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """Seed 441: an aggregator that refused everything for a while refused a run's beginning."""
    oracle = the_oracle()
    link = oracle.open_link()
    introduce(link)
    oracle.make(started("a"))
    oracle.send(link, 1, encode_body(started("a")))
    oracle.answer(link, 1, answer)
    await trio.sleep(1)  # it is on disk now
    gone = evolve(NOTHING, events_taken=1, delivered=1)
    if isinstance(answer, ErrorMessage):
        gone = evolve(NOTHING, events_taken=1, set_aside=1)
    oracle.end_life("killed", durable=True, outbox=gone)
    oracle.begin_life(durable=True, outbox=NOTHING)
    oracle.find_open_run(found, "a", in_doubt=False)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("durable", "violation"),
    [(False, None), (True, f"the aggregator refused TagsUpdatedMsg: {OTHER_RUN}")],
)
async def test_a_beginning_repeated_after_its_process_ended_has_no_end(
    durable: bool, violation: str | None
) -> None:
    """Seed 1568: a hanging aggregator had it queued, and the end was lost with the memory."""
    oracle = the_oracle(durable=durable)
    oracle.make(started("a"))
    oracle.receive(started("a"), 1, None)
    oracle.make(stopped("a"))
    oracle.end_life("stopped", durable=durable, outbox=evolve(NOTHING, events_taken=2, waiting=2))
    oracle.begin_life(durable=durable, outbox=evolve(NOTHING, waiting=2 * durable))
    oracle.receive(started("a"), 2, "run a is active already")
    oracle.make(sample(1))
    oracle.receive(sample(1), 3, OTHER_RUN)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("ends_again", "violation"),
    [(False, None), (True, "1 events never arrived, the first: [('RunStoppedMsg', 'a')]")],
)
async def test_an_end_that_a_torn_disk_lost_need_not_come_while_its_run_goes_on(
    ends_again: bool, violation: str | None
) -> None:
    """Seed 279: the next process found the run open and resumed it, and so did the one after."""
    oracle = the_oracle()
    oracle.make(started("a"))
    oracle.receive(started("a"), 1, None)
    oracle.make(stopped("a"))
    oracle.end_life("torn", durable=True, outbox=evolve(NOTHING, events_taken=2, waiting=2))
    for _ in range(2):
        oracle.begin_life(durable=True, outbox=NOTHING)
        oracle.find_open_run("a", "a", in_doubt=True)
        oracle.end_life("torn", durable=True, outbox=NOTHING)
    oracle.begin_life(durable=True, outbox=NOTHING)
    oracle.find_open_run("a", "a", in_doubt=True)
    if ends_again:
        oracle.make_end_of_run("a")
    oracle.check_end(NOTHING)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("between", "waits_s", "violation"),
    [
        ([], 2.0, "('errors', '1') was sent, and ('errors', '2') had been logged after it"),
        (events(1), 2.0, None),
        ([], 0.5, None),
    ],
    ids=["beside it", "after another event", "just now"],
)
async def test_what_is_logged_while_an_error_log_waits_becomes_part_of_it(
    between: list[em.EngineMessage],
    waits_s: float,
    violation: str | None,
    autojump_clock: trio.abc.Clock,
) -> None:
    """It does not if another event is between the two, or if the first is just being sent."""
    oracle = the_oracle()
    link = oracle.open_link()
    introduce(link)
    logs = [
        em.ErrorLogMsg(
            log=mdl.ErrorLog(
                entries=[mdl.ErrorLogEntry(message=text, created_time=0.0, severity=40)]
            )
        )
        for text in "12"
    ]
    for message in [logs[0], *between, logs[1]]:
        oracle.make(message)
    await trio.sleep(waits_s)
    oracle.send(link, 1, encode_body(logs[0]))
    assert oracle.violation == violation
