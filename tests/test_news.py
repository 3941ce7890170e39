"""Which state messages a link tells, and when."""

import logging

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.helpers.unit import Unit
from trio_runner._again import Again
from trio_runner._answers import UNREADABLE, Verdict
from trio_runner._news import News
from trio_runner._outbox import MemoryOutbox
from trio_runner._say_once import SayOnce
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl

Clock = trio.testing.MockClock

UNIT, METHOD, CONTROL = em.UodInfoMsg, em.MethodMsg, em.ControlStateMsg
OLD = m.ProtocolErrorMessage(protocol_msg=f"Message {UNREADABLE}")
FAILED = m.ProtocolErrorMessage(protocol_msg="Handler raised exception")


@define(eq=False)
class Link:
    """What a link knows of the states of an outbox that has a method."""

    outbox: MemoryOutbox = field(factory=MemoryOutbox)
    again: Again = field(init=False)
    news: News = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.again = Again(self.outbox.warnings)
        self.news = News(self.outbox, self.again, SayOnce(logging.getLogger("test")))
        self.change("1")

    def change(self, content: str) -> None:
        """Change the method."""
        lines = [mdl.MethodLine(id="1", content=content)]
        self.outbox.put(em.MethodMsg(method=mdl.Method(version=1, lines=lines)))

    def tell(
        self,
        verdict: Verdict,
        answer: m.MessageBase,
        kind: type[em.EngineMessage] = METHOD,
        took_s: float = 0.0,
        occupied_s: float = 0.0,
    ) -> int:
        """Tell a state, and take the answer; return with how much patience it was told."""
        patience = self.news.sent(kind, self.body(kind))
        self.news.answered(kind, self.body(kind), verdict, answer, took_s, occupied_s)
        return patience

    def body(self, kind: type[em.EngineMessage]) -> str:
        """Return what the outbox has of a kind."""
        return self.outbox.state(kind) or "{}"

    def is_news(self) -> bool:
        """Return whether the method is to be told."""
        return self.news.of(METHOD) is not None


async def test_a_state_is_told_once_until_it_changes(autojump_clock: Clock) -> None:
    """Neither while it is under way nor after its answer is it news."""
    link = Link()
    assert link.is_news()
    link.news.sent(METHOD, link.body(METHOD))
    assert not link.is_news()
    link.news.answered(METHOD, link.body(METHOD), Verdict.DELIVERED, m.SuccessMessage(), 0, 0)
    assert not link.is_news()
    link.change("2")
    assert link.is_news()


async def test_how_many_are_under_way_is_counted(autojump_clock: Clock) -> None:
    """Two kinds are sent, and one is answered."""
    link = Link()
    link.news.sent(METHOD, "{}")
    link.news.sent(CONTROL, "{}")
    assert link.news.under_way == 2
    link.news.answered(CONTROL, "{}", Verdict.DELIVERED, m.SuccessMessage(), 0, 0)
    assert link.news.under_way == 1


async def test_a_kind_that_none_could_read_is_not_told_again(autojump_clock: Clock) -> None:
    """An older aggregator does not know it, however it changes."""
    link = Link()
    link.tell(Verdict.POISON, OLD)
    link.change("2")
    assert not link.is_news()


async def test_a_kind_of_which_one_was_taken_is_told_again_when_it_changes(
    autojump_clock: Clock,
) -> None:
    """The aggregator knows the kind; it could not read this one message."""
    link = Link()
    link.tell(Verdict.DELIVERED, m.SuccessMessage())
    link.change("2")
    link.tell(Verdict.POISON, OLD)
    assert not link.is_news()
    link.change("3")
    assert link.is_news()


async def test_a_unit_that_could_not_be_read_is_told_again(autojump_clock: Clock) -> None:
    """Without its description nothing is taken; so it is news again, after 1, 2 and 4 s."""
    link, pauses_s = Link(), []
    link.outbox.put(Unit().create_uod_info())
    for _ in range(3):
        link.tell(Verdict.POISON, OLD, UNIT)
        assert link.news.of(UNIT) is None
        assert not link.news.is_taken(UNIT)
        pauses_s.append(link.news.tell_again(UNIT) - trio.current_time())
        assert link.news.of(UNIT) is not None
    assert pauses_s == [1, 2, 4]


async def test_a_state_that_failed_is_told_again_after_a_pause(autojump_clock: Clock) -> None:
    """The pauses are 1, 2 and 4 s, and it gets twice the time to be answered each time."""
    link, found = Link(), []
    for _ in range(3):
        await trio.sleep(10)
        patience = link.tell(Verdict.TRANSIENT, FAILED)
        found.append((patience, link.news.due_at(METHOD) - trio.current_time()))
        assert link.is_news()
    assert found == [(1, 1), (2, 2), (4, 4)]


@pytest.mark.parametrize(("took_s", "patience"), [(10.0, 1), (10.5, 2)])
async def test_patience_stays_where_it_was_needed(
    took_s: float, patience: int, autojump_clock: Clock
) -> None:
    """It failed once and was then taken: only if that took over 10 s, the next has 20 s too."""
    link = Link()
    link.tell(Verdict.TRANSIENT, FAILED)
    link.tell(Verdict.DELIVERED, m.SuccessMessage(), took_s=took_s)
    assert link.tell(Verdict.DELIVERED, m.SuccessMessage()) == patience


@pytest.mark.parametrize(("occupied_s", "rests_s"), [(0.0, 0), (0.5, 2), (30.0, 60)])
async def test_a_state_rests_for_four_times_as_long_as_it_kept_others_waiting(
    occupied_s: float, rests_s: float, autojump_clock: Clock
) -> None:
    """It rests for a minute at most."""
    link = Link()
    await trio.sleep(100)
    link.tell(Verdict.DELIVERED, m.SuccessMessage(), occupied_s=occupied_s)
    assert link.news.due_at(METHOD) == trio.current_time() + rests_s


async def test_a_state_that_is_too_big_is_left_out_until_it_changes(
    autojump_clock: Clock,
) -> None:
    """A description is looked at again after 1, 2 and 4 s, since nothing goes out without it."""
    link, pauses_s = Link(), []
    link.news.leave_out(METHOD, link.body(METHOD))
    assert not link.is_news()
    link.change("2")
    assert link.is_news()
    for _ in range(3):
        link.news.leave_out(UNIT, "{}")
        pauses_s.append(link.news.tell_again(UNIT) - trio.current_time())
    assert pauses_s == [1, 2, 4]
