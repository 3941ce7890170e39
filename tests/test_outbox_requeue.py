"""What was set aside returns to its place in the line, unless it would do harm there."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve

from tests.test_outbox import UNIT, event, sample, waiting
from trio_runner import DurableOutbox, OutboxInUse
from trio_runner._outbox_sqlite import Requeued, requeue, summarize
from trio_runner.protocol import engine_messages as em


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unit.outbox"


def started(run_id: str) -> em.RunStartedMsg:
    return UNIT.create_run_started_msg(run_id, 1.0)


def stopped(run_id: str) -> em.RunStoppedMsg:
    return UNIT.create_run_stopped_msg(run_id)


def in_run(run_id: str) -> em.TagsUpdatedMsg:
    return evolve(sample(0), run_id=run_id)


def handle(path: Path, messages: Iterable[tuple[str, em.EngineMessage]]) -> None:
    """Put messages in; let each one be delivered, set aside or wait."""
    with DurableOutbox(path) as outbox:
        for fate, message in messages:
            outbox.put(message)
            if fate == "delivered":
                outbox.delivered(outbox.take())
            elif fate == "aside":
                outbox.set_aside(outbox.take(), "no")


def numbers(path: Path) -> list[int]:
    with DurableOutbox(path) as outbox:
        return waiting(outbox)


def aside(path: Path) -> list[int]:
    return [message.sequence_number for message in summarize(path).set_aside]


def test_what_was_set_aside_waits_again_in_its_place(path: Path) -> None:
    """Its number gives its place, before what was put in later. It counts as sent once."""
    handle(
        path,
        [("aside", event("1")), ("aside", sample(2)), ("delivered", event("3")), ("", event("4"))],
    )
    assert requeue(path) == Requeued(waiting=2, spoilt=0, too_late=0)
    summary = summarize(path)
    assert (summary.set_aside, summary.maybe_arrived) == ([], 2)
    with DurableOutbox(path) as outbox:
        first = outbox.take()
        assert (first.sequence_number, first.tries, "1" in first.text) == (1, 2, True)
        assert waiting(outbox) == [2, 4]
    assert requeue(path) == Requeued(waiting=0, spoilt=0, too_late=0)


def test_a_run_that_was_set_aside_comes_back_as_a_whole(path: Path) -> None:
    """Its beginning, its samples and its end come back."""
    handle(path, [("aside", started("a")), ("aside", in_run("a")), ("aside", stopped("a"))])
    assert requeue(path).waiting == 3
    assert numbers(path) == [1, 2, 3]


def test_the_end_of_a_run_that_the_aggregator_has_comes_back(path: Path) -> None:
    """So do its samples: the aggregator has that run as long as no other one began."""
    handle(path, [("delivered", started("a")), ("aside", in_run("a")), ("aside", stopped("a"))])
    assert requeue(path).waiting == 2
    assert numbers(path) == [2, 3]


def test_samples_of_the_run_that_is_on_come_back(path: Path) -> None:
    """The aggregator stores those that are newer than what it has."""
    handle(path, [("delivered", started("a")), ("aside", in_run("a")), ("", in_run("a"))])
    assert requeue(path).waiting == 1
    with DurableOutbox(path) as outbox:
        assert outbox.run_id == "a"
        assert waiting(outbox) == [2, 3]


@pytest.mark.parametrize(
    "message",
    [started("old"), stopped("old"), in_run("old"), sample(0)],
    ids=["beginning", "end", "sample", "sample of no run"],
)
def test_what_would_harm_the_run_that_is_on_stays_aside(
    message: em.EngineMessage, path: Path
) -> None:
    """It would end that run, or be answered with Success and thrown away."""
    handle(path, [("aside", message), ("delivered", started("new")), ("", in_run("new"))])
    assert requeue(path) == Requeued(waiting=0, spoilt=0, too_late=1)
    assert aside(path) == [1]
    with DurableOutbox(path) as outbox:
        assert outbox.run_id == "new"


def test_a_beginning_stays_aside_if_its_run_would_not_end_before_what_waits(path: Path) -> None:
    """What was sampled after that run would be thrown away while it is on."""
    handle(path, [("aside", started("a")), ("delivered", stopped("a")), ("", sample(1))])
    assert requeue(path) == Requeued(waiting=0, spoilt=0, too_late=1)


def test_samples_of_a_run_that_has_ended_stay_aside(path: Path) -> None:
    """The aggregator would answer Success and throw them away."""
    handle(path, [("delivered", started("a")), ("aside", in_run("a")), ("delivered", stopped("a"))])
    assert requeue(path) == Requeued(waiting=0, spoilt=0, too_late=1)
    assert aside(path) == [2]


def test_what_the_disk_has_spoilt_stays_aside(path: Path) -> None:
    """The rest comes back."""
    handle(path, [("aside", event("1")), ("aside", event("2"))])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE set_aside SET body = x'00' WHERE sequence_number = 1")
        db.commit()
    assert requeue(path) == Requeued(waiting=1, spoilt=1, too_late=0)
    assert (numbers(path), aside(path)) == ([2], [1])


def test_the_file_of_a_running_engine_is_refused(path: Path) -> None:
    """The engine would not know what comes back."""
    with DurableOutbox(path) as outbox:
        outbox.put(event("1"))
        with pytest.raises(OutboxInUse):
            requeue(path)


def test_the_end_of_a_run_stays_aside_after_another_run(path: Path) -> None:
    """The aggregator no longer knows that run: it would answer Success and throw it away."""
    handle(
        path,
        [
            ("delivered", started("a")),
            ("aside", in_run("a")),
            ("aside", stopped("a")),
            ("delivered", started("b")),
            ("delivered", stopped("b")),
        ],
    )
    assert requeue(path) == Requeued(waiting=0, spoilt=0, too_late=2)
    assert aside(path) == [2, 3]
