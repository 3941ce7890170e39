"""Which samples a commit leaves to a later one, because they are under way."""

from trio_runner._outbox import Entry
from trio_runner._outbox_sqlite._file import Changes
from trio_runner._outbox_sqlite._under_way import UnderWay
from trio_runner.protocol import engine_messages as em

SAMPLE = Entry(1, em.TagsUpdatedMsg, b"", 0.0)
EVENT = Entry(2, em.WebPushNotificationMsg, b"", 0.0)
IN_LINE = Entry(3, em.TagsUpdatedMsg, b"", 0.0)


def left_out(under_way: UnderWay, now: float) -> list[int]:
    """Return the numbers that a commit leaves out; sample 1 and event 2 are in flight."""
    changes = Changes({entry.sequence_number: entry for entry in (SAMPLE, EVENT, IN_LINE)})
    entries = under_way.leave_out(changes, {1, 2}, now)
    left = [entry.sequence_number for entry in entries]
    assert sorted([*left, *changes.new]) == [1, 2, 3]
    return left


def test_a_sample_under_way_is_left_out_for_2_s_while_answers_come() -> None:
    """No event is left out, and no sample that has not been sent."""
    under_way = UnderWay()
    found = []
    for now in (0.0, 0.5, 1.0, 1.5, 2.0):
        under_way.answered(now)
        found.append(left_out(under_way, now))
    assert found == [[1], [1], [1], [1], []]


def test_nothing_is_left_out_if_no_answer_has_come_for_a_second() -> None:
    """The link may have ended, and nobody knows yet."""
    under_way = UnderWay()
    assert left_out(under_way, 0.0) == []
    under_way.answered(10.0)
    assert left_out(under_way, 10.5) == [1]
    assert left_out(under_way, 11.0) == []
