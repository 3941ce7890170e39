"""What a killed real engine has left is delivered as its own."""

import signal
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.helpers.command import ran, running
from trio_runner.protocol import SuccessMessage, encode
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

from .test_command import IGNORE, uod_named

pytestmark = pytest.mark.timeout(120)


async def test_what_a_killed_engine_has_left_is_delivered_as_its_own(tmp_path: Path) -> None:
    """Registration, description and method are those that the engine itself has told."""
    uod, file, aggregator = uod_named(tmp_path, "Left behind"), tmp_path / "outbox", Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        where = ("-ap", str(port), "-uod", uod, "--outbox", str(file))
        async with running("engine", *where, *IGNORE) as command:
            await command.until("Starting engine on first steady-state")
            engine_id = aggregator.engine().engine_id
            answer = await aggregator.call(engine_id, am.ExecuteControlCommandMsg(name="Start"))
            assert isinstance(answer, SuccessMessage)
            await aggregator.wait_until(lambda: aggregator.messages(em.RunStartedMsg))
            aggregator.down()
            aggregator.kill()
            await trio.sleep(7)  # it samples every 5 s on its own
            command.send(signal.SIGKILL)
        sampled = len(aggregator.messages(em.TagsUpdatedMsg))
        aggregator.up()
        command = await ran(
            *("outbox", "deliver", str(file), "-ahn", "127.0.0.1", "-ap", str(port), "-ignore")
        )
        nursery.cancel_scope.cancel()
    assert command.code == 0, command.err
    first, last = aggregator.engine().registrations[0], aggregator.engine().registrations[-1]
    assert evolve(last.message, secret="") == evolve(first.message, secret="")
    for kind in (em.UodInfoMsg, em.MethodMsg):
        told = [encode(message) for message in aggregator.messages(kind)]
        assert _without_number(told[-1]) == _without_number(told[0])
    assert len(aggregator.messages(em.TagsUpdatedMsg)) > sampled
    (started, *_) = aggregator.messages(em.RunStartedMsg)
    assert [run.run_id for run in aggregator.recent_runs] == [started.run_id]
    assert aggregator.engine().refused == []


def _without_number(message: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in message.items() if name != "sequence_number"}
