"""How a message that did not get through is tried again."""

import trio
from trio.testing import MockClock

from trio_runner._again import Again, Told, patience, pause_s
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em


def test_pauses_double_up_to_a_minute() -> None:
    """The first failure costs 1 s, the seventh and all that follow 60 s."""
    assert [pause_s(failures) for failures in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_patience_doubles_up_to_twelve_times() -> None:
    """An answer has 10 s, then 20, 40, 80 and at last 120 s."""
    assert [patience(failures) for failures in range(6)] == [1, 2, 4, 8, 12, 12]


async def test_that_one_link_ends_at_a_message_is_no_sign(autojump_clock: MockClock) -> None:
    """From the second in a row on, if it was alone, it has a pause: 2 s, then 4 s."""
    await trio.sleep(100)
    told, now = Told(), trio.current_time()
    told.cut(alone=True)
    assert (told.links, told.failures, told.due_at) == (1, 1, 0)
    told.cut(alone=True)
    assert (told.links, told.failures, told.due_at) == (2, 2, now + 2)
    told.cut(alone=False)
    assert (told.links, told.failures, told.due_at) == (3, 2, now + 2)
    told.cut(alone=True)
    assert (told.links, told.failures, told.due_at) == (4, 3, now + 4)
    told.failed()  # an answer does not end links
    assert (told.links, told.failures) == (0, 4)


async def test_what_ended_eight_links_in_a_row_alone_is_left_out(autojump_clock: MockClock) -> None:
    """For 600 s at the least; but not the beginning of a run, nor what tells of the unit."""
    await trio.sleep(100)
    for kind, is_left_out in ((em.MethodMsg, True), (em.RunStartedMsg, False)):
        again = Again(Warnings())
        told = again.of(kind)
        for links in range(1, 9):
            assert told.left_out is None
            told.under_way = "this"
            again.rewind(alone=True)
            assert (told.links, again.under_way) == (links, 0)
        assert told.left_out == ("this" if is_left_out else None)
        assert told.due_at == trio.current_time() + (600 if is_left_out else 60)
    again = Again(Warnings())
    unit, method = again.of(em.UodInfoMsg), again.of(em.MethodMsg)
    for _ in range(9):
        unit.under_way = method.under_way = "this"
        assert again.under_way == 2
        again.rewind(alone=True)
    assert (unit.due_at, unit.left_out) == (0, None)  # without it nothing goes out
    assert (method.failures, method.left_out) == (0, None)  # neither was alone


def test_what_was_taken_late_keeps_its_patience_until_it_is_taken_in_time() -> None:
    """After two failures it got through, but not within the usual time."""
    told = Told()
    told.failed()
    told.failed()
    assert (told.patience, told.is_suspect) == (4, False)
    told.taken(is_late=True)
    assert (told.failures, told.patience) == (0, 4)
    told.taken(is_late=True)
    assert told.patience == 4
    told.taken(is_late=False)
    assert told.patience == 1
