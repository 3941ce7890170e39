"""The oracle counts tries, and so sees whether each bound in the rules of delivery is kept."""

from collections.abc import Sequence

import pytest
import trio
from attrs import evolve

from tests.simulation.test_oracle import (
    NOTHING,
    events,
    introduce,
    sample,
    started,
    stopped,
    the_oracle,
)
from trio_runner.protocol import ErrorMessage, ProtocolErrorMessage, SuccessMessage, encode_body
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._watched_link import Key, WatchedLink

FAILED = ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
REFUSED = ErrorMessage(message="never")
NO_ANSWER = "The aggregator did not answer a message within"
EVENT = events(1)[0]
KEY = ("notification", "event 0")


def opened(oracle: Oracle) -> WatchedLink:
    """Return a new link that has had its first two messages."""
    link = oracle.open_link()
    introduce(link)
    return link


def with_a_link() -> tuple[Oracle, WatchedLink]:
    """Return an oracle that has seen an event made and a link open, and that link."""
    oracle = the_oracle()
    oracle.make(EVENT)
    return oracle, opened(oracle)


@pytest.mark.parametrize(
    ("pauses", "violation"),
    [
        ((1, 2, 4, 8, 16, 32, 60, 60), None),
        ((1, 2, 4, 7), f"{KEY} had failed, and was sent 1.00 s early"),
        ((0,), f"{KEY} had failed, and was sent 1.00 s early"),
    ],
)
async def test_pauses_grow_with_each_failure(
    pauses: Sequence[int], violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """They grow from 1 s to a minute, and double each time."""
    oracle, link = with_a_link()
    for pause in (*pauses, 0):
        oracle.send(link, 1, encode_body(EVENT))
        oracle.answer(link, 1, FAILED)
        await trio.sleep(pause)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("pauses", "violation"),
    [
        ((0, 0, 2, 4, 8), None),
        ((0, 0, 1), f"{KEY} had ended a link, and was sent 1.00 s early"),
    ],
)
async def test_a_message_that_ended_two_links_is_sent_later_on_the_next(
    pauses: Sequence[int], violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """One end may be chance; after a second link ended at a message, it is sent later."""
    oracle, link = with_a_link()
    for pause in pauses:
        await trio.sleep(pause)
        oracle.send(link, 1, encode_body(EVENT))
        oracle.close_link(link, "The connection ended")
        link = opened(oracle)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("times", "violation"), [(8, None), (15, "('sample', '1') was sent 15 times")]
)
async def test_nothing_is_sent_for_ever(
    times: int, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """A sample may fail 8 times, after two links that ended while others were unanswered too."""
    oracle, link = with_a_link()
    oracle.make(sample(1))
    for _ in range(times):
        oracle.send(link, 2, encode_body(sample(1)))
        oracle.answer(link, 2, FAILED)
        oracle._set_aside.clear()  # otherwise that would be the violation
        await trio.sleep(60)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("failures", "set_aside", "violation"),
    [
        (20, 0, None),
        (21, 1, None),
        (3, 1, "1 messages are said to be set aside, but 0 were"),
        (21, 0, "0 messages are said to be set aside, but 1 were"),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
async def test_an_event_is_given_up_after_21_tries(
    failures: int, set_aside: int, violation: str | None, cut: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Failures at the aggregator count as ended links do; of the latter, the next link tells."""
    oracle, link = with_a_link()
    for _ in range(failures):
        await trio.sleep(60)
        oracle.send(link, 1, encode_body(EVENT))
        if cut:
            oracle.close_link(link, "The connection ended")
            link = opened(oracle)
        else:
            oracle.answer(link, 1, FAILED)
    oracle.check_books(evolve(NOTHING, events_taken=set_aside, set_aside=set_aside))
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("waited_s", "violation"),
    [
        ((10, 20, 40), None),
        ((10, 10), f"a link had too little patience: {NO_ANSWER}"),
        ((9,), f"a link had too little patience: {NO_ANSWER}"),
    ],
)
async def test_patience_grows_with_each_try(
    waited_s: Sequence[int], violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """An aggregator that takes half a minute for a message is given up on twice, not for ever."""
    oracle, link = with_a_link()
    for wait in waited_s:
        await trio.sleep(60)
        oracle.send(link, 1, encode_body(EVENT))
        await trio.sleep(wait)
        oracle.close_link(link, NO_ANSWER)
        link = opened(oracle)
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("since_s", "violation"),
    [(5, None), (4, "a link was given up only 4.0 s after bytes had left")],
)
async def test_bytes_that_move_are_life(
    since_s: float, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """A message that takes half a minute to leave does not end its link."""
    oracle, link = with_a_link()
    oracle.send(link, 1, encode_body(EVENT))
    await trio.sleep(30)
    oracle.tries.moved_at = lambda: 30 - since_s
    oracle.close_link(link, "The aggregator did not answer a ping within 5 s.")
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("every_s", "violation"),
    [
        (3.1, None),  # 39 in 2 min
        (11, None),
        (2.9, "41 links within 120 s did not last"),
    ],
)
async def test_links_that_break_at_once_become_ever_rarer(
    every_s: float, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """At most 40 come in 2 min, however long it goes on; links that lived do not count."""
    oracle = the_oracle()
    for _ in range(100):
        link = oracle.open_link()
        await trio.sleep(every_s)
        oracle.close_link(link, "The connection ended")
    assert oracle.violation == violation


@pytest.mark.parametrize(("again", "violation"), [(True, None), (False, "{key} was sent again")])
async def test_the_end_of_a_run_goes_out_with_less_in_it(
    again: bool, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """It does so as soon as it is refused; an end that cannot have less in it is set aside."""
    oracle, link = with_a_link()
    whole = stopped("a") if not again else archived("a")
    oracle.make(started("a"))
    oracle.make(whole)
    oracle._answered[("RunStartedMsg", "a")] = 0.0
    oracle._answered[KEY] = 0.0
    oracle.send(link, 3, encode_body(whole))
    oracle.answer(link, 3, REFUSED)
    oracle.send(link, 3, encode_body(stopped("a")))
    key = ("RunStoppedMsg", "a")
    assert (oracle.violation is None) == (violation is None)
    assert violation is None or violation.format(key=key) in str(oracle.violation)


def archived(run_id: str) -> em.RunStoppedMsg:
    """Return the end of a run, with an archive."""
    return evolve(stopped(run_id), archive="Time,Count", archive_filename="a.csv")


async def test_the_answer_not_registered_makes_no_suspect_of_other_unanswered_messages(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Seed 47: the first of two samples got this answer, and the second was called a suspect."""
    oracle, link = with_a_link()
    for _ in range(2):
        for number in (1, 2):
            if not oracle.identities.is_used(number):
                oracle.make(sample(number))
            oracle.send(link, number, encode_body(sample(number)))
        oracle.answer(link, 1, ErrorMessage(message="No engine registered under id host_Unit"))
        oracle.close_link(link, "The aggregator does not know this engine")
        link = opened(oracle)
    assert oracle.violation is None


@pytest.mark.parametrize(
    ("kept", "violation"),
    [
        ([(KEY,)], None),
        ([], "1 messages waited, but kept under the old name are []"),
        ([(KEY,), (("sample", "1"),)], "1 messages waited, but kept under the old name are"),
    ],
)
async def test_what_waits_under_an_old_host_name_is_kept(
    kept: list[tuple[Key, ...]], violation: str | None
) -> None:
    """Everything is kept and nothing else; it need not arrive then."""
    oracle = the_oracle()
    oracle.make(EVENT)
    one = evolve(NOTHING, events_taken=1, waiting=1)
    oracle.end_life("stopped", durable=True, outbox=one)
    oracle.begin_life(durable=True, outbox=evolve(NOTHING, waiting=1))
    oracle.part_from(kept, NOTHING)
    oracle.check_end(NOTHING)
    assert (oracle.violation or "").startswith(violation or "")
    assert (oracle.violation is None) == (violation is None)


@pytest.mark.parametrize(("repeats", "violation"), [(2, None), (1, "whose run was not taken")])
async def test_the_open_run_is_told_until_it_is_taken(
    repeats: int, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """Messages that are sent earlier would be refused, or be taken for another run's."""
    oracle, link = with_a_link()
    beginning = started("a")
    oracle.make(beginning)
    oracle._answered[("RunStartedMsg", "a")] = 0.0
    for number in range(repeats):
        oracle.send(link, 1, encode_body(beginning))
        oracle.answer(link, 1, SuccessMessage() if number else FAILED)
    oracle.send(link, 2, encode_body(EVENT))
    assert (oracle.violation is None) == (violation is None)
    assert violation is None or violation in str(oracle.violation)


@pytest.mark.parametrize(("alone", "violation"), [(True, None), (False, "is a suspect")])
async def test_what_was_sent_in_vain_goes_alone(
    alone: bool, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """This shows whether it is to blame."""
    oracle, link = with_a_link()
    oracle.make(sample(1))
    oracle.make(sample(2))
    oracle.send(link, 2, encode_body(sample(1)))
    oracle.answer(link, 2, FAILED)
    await trio.sleep(1)
    oracle.send(link, 2, encode_body(sample(1)))
    if alone:
        oracle.answer(link, 2, SuccessMessage())
    oracle.send(link, 3, encode_body(sample(2)))
    assert (oracle.violation is None) == (violation is None)
    assert violation is None or violation in str(oracle.violation)


@pytest.mark.parametrize(
    ("message", "pause_s"), [(sample(1), 1 + 2 + 4), (EVENT, 0)], ids=["a sample", "a notice"]
)
async def test_samples_may_be_late_while_a_failed_one_has_to_wait(
    message: em.EngineMessage, pause_s: float, autojump_clock: trio.abc.Clock
) -> None:
    """The handler worked again during the pause, but the values were old. A notice is passed."""
    oracle, began = the_oracle(), trio.current_time()
    link = opened(oracle)
    oracle.make(message)
    for pause in (1, 2, 4):
        oracle.send(link, 1, encode_body(message))
        oracle.answer(link, 1, FAILED)
        await trio.sleep(pause)
    assert max(oracle.tries.paused_until, began) == pytest.approx(began + pause_s)
    assert oracle.violation is None
