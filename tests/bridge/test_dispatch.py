"""What people ask for reaches the package's handlers, and never holds up the link."""

import threading
from typing import Any

import pytest
import trio
from openpectus.protocol import aggregator_messages as am
from openpectus.protocol import models as package_models
from openpectus.protocol.serialization import serialize

from trio_runner import EngineRunner, Timing
from trio_runner.bridge import UodDispatcher
from trio_runner.protocol import (
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    SuccessMessage,
    encode,
)
from trio_runner.protocol import aggregator_messages as ours
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

from .units import demo_engine, ticked_demo


def what(answer: MessageBase) -> Any:
    """Return the name of the class of an answer, as on the wire."""
    return encode(answer)["_type"]


async def test_the_five_commands_reach_the_engine() -> None:
    """Method, Start, code, force and cancel are carried out by the package's handlers."""
    with ticked_demo() as unit:
        dispatcher = UodDispatcher(engine=unit.engine)

        async def ask(message: Any) -> Any:
            answer = await dispatcher.dispatch(serialize(message))
            unit.tick(3)
            return what(answer)

        method = package_models.Method.from_pcode("Mark: A\nWait: 10 min\nReset")
        assert await ask(am.MethodMsg(method=method)) == "SuccessMessage"
        assert await ask(am.ExecuteControlCommandMsg(name="Start")) == "SuccessMessage"
        unit.tick(5)
        assert await ask(am.InjectCodeMsg(pcode="Mark: by hand")) == "SuccessMessage"
        lines = unit.inside.tracking.get_runlog().items
        (wait,) = [line for line in lines if line.name == "Wait: 10 min"]
        assert await ask(am.ForceMsg(exec_id=wait.id)) == "SuccessMessage"
        unit.tick(5)
        lines = unit.inside.tracking.get_runlog().items
        (reset,) = [line for line in lines if line.name == "Reset"]
        assert await ask(am.CancelMsg(exec_id=reset.id)) == "SuccessMessage"
        assert {"Mark: A", "Mark: by hand"} <= {line.name for line in lines}


async def test_a_refused_command_is_answered_with_the_packages_words() -> None:
    """A mistake of the person stays one."""
    with ticked_demo() as unit:
        dispatcher = UodDispatcher(engine=unit.engine)
        answer = await dispatcher.dispatch(serialize(am.ExecuteControlCommandMsg(name="Stop")))
        told = encode(answer)
        assert (told["_type"], told["caller_error"]) == ("ErrorMessage", True)
        assert told["message"] == "The command 'Stop' was invalid"


@pytest.mark.parametrize("nonsense", [None, {}, {"_type": "X", "_ns": "y"}])
async def test_nonsense_is_answered_as_such(nonsense: object) -> None:
    """An object that is no message is answered as such, whatever it is."""
    with demo_engine() as engine:
        answer = await UodDispatcher(engine=engine).dispatch(nonsense)
    assert isinstance(answer, ProtocolErrorMessage)


async def test_a_handler_that_raises_is_answered() -> None:
    """The person is told, and the link stays."""

    async def fail(message: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    with demo_engine() as engine:
        engine.handlers[am.CancelMsg] = fail
        answer = await UodDispatcher(engine=engine).dispatch(serialize(am.CancelMsg(exec_id="1")))
    assert isinstance(answer, ErrorMessage)
    assert answer.exception_message == "division by zero"


async def test_a_blocked_handler_blocks_nobody_and_does_not_pile_up() -> None:
    """Those that wait after a blocked one are given up at their deadline, and never run late."""
    blocked, release, carried_out = threading.Event(), threading.Event(), list[str]()

    async def block(message: Any) -> Any:
        carried_out.append(message.exec_id)
        blocked.set()
        release.wait()
        return am.SuccessMessage()

    with demo_engine() as engine:
        engine.handlers[am.CancelMsg] = block
        dispatcher = UodDispatcher(engine=engine)

        async def give_up(exec_id: str) -> bool:
            with trio.move_on_after(0.05) as patience:
                await dispatcher.dispatch(serialize(am.CancelMsg(exec_id=exec_id)))
            return patience.cancelled_caught

        before = threading.active_count()
        assert [await give_up(str(number)) for number in range(20)] == [True] * 20
        assert blocked.is_set()
        assert threading.active_count() <= before + 1
        release.set()
        answer = await dispatcher.dispatch(serialize(am.CancelMsg(exec_id="last")))
        assert what(answer) == "SuccessMessage"
    assert carried_out == ["0", "last"]


async def test_a_blocked_handler_is_answered_in_time_over_a_link_that_lives() -> None:
    """The blocked command and the next are refused, and the next never runs; then all is well.

    Samples go out all the while over the same link.
    """
    release, carried_out = threading.Event(), list[str]()

    async def block(message: Any) -> Any:
        carried_out.append(message.exec_id)
        release.wait()
        return am.SuccessMessage()

    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        with ticked_demo(ignore_version_error=True) as unit:
            unit.tick()
            engine = unit.engine
            engine.handlers[am.CancelMsg] = block
            dispatcher = UodDispatcher(port=port, engine=engine)
            timing = Timing(answer_s=0.3, steady_s=0.1)
            runner = EngineRunner(dispatcher, engine.builder, engine.emitter, timing=timing)
            await nursery.start(runner.run)
            await aggregator.wait_until(lambda: runner.state == "Connected")
            engine_id = aggregator.engine().engine_id

            async def ask(exec_id: str) -> MessageBase:
                return await aggregator.call(engine_id, ours.CancelMsg(exec_id=exec_id))

            for exec_id in ("blocked", "behind it"):
                asked_at = trio.current_time()
                answer = await ask(exec_id)
                assert trio.current_time() - asked_at < 1.5
                assert isinstance(answer, ErrorMessage)
                assert "did not carry this out within 0.3 s" in str(answer.message)
            told = len(aggregator.messages(em.TagsUpdatedMsg))
            unit.tick()
            await aggregator.wait_until(lambda: len(aggregator.messages(em.TagsUpdatedMsg)) > told)
            release.set()
            assert isinstance(await ask("free again"), SuccessMessage)
            assert runner.statistics().links == 1
            await runner.shutdown()
        nursery.cancel_scope.cancel()
    assert carried_out == ["blocked", "free again"]
