"""Messages on their way into the outbox: nobody waits while a large one is prepared."""

import threading

import pytest
from attrs import define, field

from tests.threads.play import Engine
from trio_runner import MemoryOutbox
from trio_runner._intake import Intake
from trio_runner._outbox import Prepared
from trio_runner.protocol import engine_messages as em


@define(eq=False)
class Slow(MemoryOutbox):
    """An outbox in which encoding and packing the end of a run takes its time."""

    reached: threading.Event = field(factory=threading.Event)
    may_go_on: threading.Event = field(factory=threading.Event)

    def prepare(self, message: em.EngineMessage) -> Prepared:
        if isinstance(message, em.RunStoppedMsg):
            self.reached.set()
            self.may_go_on.wait()
        return super().prepare(message)


@pytest.mark.timeout(60)
async def test_samples_are_taken_while_the_end_of_a_run_is_encoded() -> None:
    """The engine's thread encodes it; the samples belong to the run and come before its end."""
    unit, outbox = Engine("Unit", computer_name="host"), Slow()
    intake = Intake(unit, outbox, lambda: 0.0)
    intake.post(unit.create_run_started_msg("run-1", 0.0))
    engine = threading.Thread(
        target=intake.post, args=(unit.create_run_stopped_msg("run-1"),), daemon=True
    )
    engine.start()
    outbox.reached.wait()
    intake.take_tags(whole=False)
    outbox.may_go_on.set()
    engine.join()
    entries = [outbox.take() for _ in range(3)]
    assert [entry.kind for entry in entries] == [
        em.RunStartedMsg,
        em.TagsUpdatedMsg,
        em.RunStoppedMsg,
    ]
    assert '"run_id":"run-1"' in entries[1].text


@define(eq=False)
class Starting(Engine):
    """An engine that begins a run, from its thread, while it is asked for the tags that changed."""

    intake: Intake = field(init=False)
    asked: list[str | None] = field(factory=list)
    """What it was asked for: changes in a run (its id), changes outside a run (None), or `all`."""

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        self.asked.append(run_id)
        if run_id is None:
            self.intake.post(self.create_run_started_msg("run-1", 0.0))
        return super().create_tag_updates_msg(run_id)

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        self.asked.append("all")
        return super().create_tag_updates_snapshot_msg()


async def test_tags_are_asked_for_once_more_if_a_run_began_meanwhile() -> None:
    """All of them, since the engine does not tell twice what changed. They belong to the run."""
    unit, outbox = Starting("Unit", computer_name="host"), MemoryOutbox()
    unit.intake = Intake(unit, outbox, lambda: 0.0)
    unit.intake.take_tags(whole=False)
    assert unit.asked == [None, "all"]
    unit.intake.take_tags(whole=False)
    assert unit.asked == [None, "all", "run-1"]
    started, *samples = [outbox.take() for _ in range(3)]
    assert started.kind is em.RunStartedMsg
    assert all('"run_id":"run-1"' in sample.text for sample in samples)
