"""The doorbell and the broadcast."""

import trio
import trio.testing

from trio_runner._publish import Broadcast, Doorbell


async def test_a_doorbell_wakes_once_however_often_it_was_rung(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Rings before a wait count as one, and the next wait waits."""
    bell = Doorbell()
    bell.ring()
    bell.ring()
    await bell.wait()
    with trio.move_on_after(1) as patience:
        await bell.wait()
    assert patience.cancelled_caught


async def test_a_cancelled_wait_hears_no_ring(autojump_clock: trio.testing.MockClock) -> None:
    """A ring after a cancelled wait is kept for the next one."""
    bell = Doorbell()
    with trio.move_on_after(1):
        await bell.wait()
    bell.ring()
    with trio.fail_after(1):
        await bell.wait()


async def test_a_slow_subscriber_loses_nothing() -> None:
    """A thousand values wait, in order, for a subscriber that reads late; then the loop ends."""
    broadcast = Broadcast[int]()
    with broadcast.subscribe() as values, broadcast.subscribe() as others:
        for value in range(1000):
            broadcast.publish(value)
        broadcast.close()
        assert [value async for value in values] == list(range(1000))
        assert [value async for value in others] == list(range(1000))


async def test_a_subscriber_that_has_left_is_forgotten() -> None:
    """Publishing to nobody, or after a subscriber has gone, is no error."""
    broadcast = Broadcast[int]()
    with broadcast.subscribe() as values:
        broadcast.publish(1)
        assert await values.receive() == 1
    broadcast.publish(2)
    assert not broadcast._subscribers


async def test_a_subscriber_that_comes_late_or_leaves_early_does_no_harm() -> None:
    """After the end a subscription ends at once; a subscriber that has closed hears no more."""
    broadcast = Broadcast[int]()
    with broadcast.subscribe() as early, broadcast.subscribe() as other:
        early.close()
        broadcast.publish(1)
        assert await other.receive() == 1
    broadcast.close()
    with broadcast.subscribe() as late:
        assert [value async for value in late] == []
