"""How many notices may be unanswered beside the samples of a link."""

from trio_runner._notices import Notices
from trio_runner._outbox import Entry
from trio_runner.protocol import engine_messages as em


def notice(failures: int = 0) -> Entry:
    return Entry(1, em.ErrorLogMsg, b"", 0.0, failures=failures)


def test_each_notice_that_keeps_others_waiting_for_200_ms_at_most_makes_room_for_one_more() -> None:
    """It begins with one. One that is more work brings it back to one."""
    notices, room = Notices(), list[int]()
    for occupied_s in ([0.1], [0.2, 0.2], [0.2, 0.2, 0.2, 0.3], [0.1]):
        room.append(0)
        while notices.have_room_for(notice()):
            notices.sent(is_retried=False)
            room[-1] += 1
        for each_s in occupied_s:
            notices.answered(5.0, each_s, is_retried=False)
            assert notices.rest_until == 5.0 + each_s
    assert room == [1, 2, 4, 1]


def test_of_notices_that_have_failed_one_is_unanswered_at_a_time() -> None:
    """Others go beside it."""
    notices = Notices()
    for _ in range(2):
        notices.sent(is_retried=False)
        notices.answered(0.0, 0.0, is_retried=False)
    assert notices.have_room_for(notice(failures=1))
    notices.sent(is_retried=True)
    notices.sent(is_retried=False)
    assert not notices.have_room_for(notice(failures=1))
    assert notices.have_room_for(notice())
    notices.answered(0.0, 0.0, is_retried=True)
    assert notices.have_room_for(notice(failures=1))
