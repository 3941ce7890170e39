"""What the package's builder makes goes out unchanged."""

import json
from typing import Any

import pytest
from attrs import define, field
from fastapi_websocket_rpc.schemas import RpcMessage, RpcRequest
from openpectus.engine.hardware import HardwareLayerException
from openpectus.protocol import engine_messages as package
from openpectus.protocol.serialization import deserialize, serialize

from trio_runner import EngineRunner, MemoryOutbox, PlainEngine
from trio_runner._intake import Intake
from trio_runner._outbox import DELIVERY
from trio_runner.bridge import UodMessageBuilder, _run_log, to_object
from trio_runner.net import EngineDispatcher
from trio_runner.protocol import MessageBase, encode_body, encode_dispatch, foreign
from trio_runner.protocol import engine_messages as em

from .units import Ticked, ticked_demo

METHOD = [
    "Macro: Twice",
    "    Mark: in macro",
    "Alarm: Run Time > 0.3 s",
    "    Mark: alarm",
    "Watch: Run Time > 0.2 s",
    "    Mark: watch",
    "Block: First",
    "    Mark: in block",
    "    Wait: 0.5 s",
    "    End block",
    "Call macro: Twice",
    "Notify: half of it",
    "Increment run counter",
    "Wait: 5 s",
]


def as_the_package_sends_it(message: Any) -> Any:
    """Return a message as the package's own channel puts it on the wire."""
    request = RpcRequest(
        method="dispatch_message_async", arguments={"message_json": serialize(message)}
    )
    frame = json.loads(RpcMessage(request=request).model_dump_json())
    return frame["request"]["arguments"]["message_json"]


def as_we_send_it(message: em.EngineMessage) -> Any:
    """Return a message as our session puts it on the wire."""
    frame = json.loads(encode_dispatch("call", "id", 7, encode_body(message)))
    return frame["request"]["arguments"]["message_json"]


@define(eq=False)
class Tap:
    """Takes what the package's builder makes, and what becomes of it."""

    made: list[Any] = field(factory=list)
    kinds: set[str] = field(factory=set)

    def put_into(self, builder: UodMessageBuilder) -> None:
        """Note what the package's builder returns from now on."""
        inside: Any = builder._builder
        for name in [name for name in dir(inside) if name.startswith("create_")]:
            setattr(inside, name, self._noting(getattr(inside, name)))

    def _noting(self, create: Any) -> Any:
        def noting(*arguments: Any, **named: Any) -> Any:
            message = create(*arguments, **named)
            if message is not None:
                self.made.append(message)
            return message

        return noting

    def check(self, ours: MessageBase | None) -> None:
        """Compare what became of the last message."""
        if ours is None:
            return
        theirs = self.made[-1]
        self.kinds.add(type(theirs).__name__)
        if isinstance(ours, em.EngineMessage):
            assert encode_body(ours) == encode_body(foreign(to_object(theirs), em.EngineMessage))
            theirs.engine_id, theirs.sequence_number = "id", 7
            assert as_we_send_it(ours) == as_the_package_sends_it(theirs)
            assert deserialize(as_we_send_it(ours)) == theirs


def lose_equipment(unit: Ticked) -> None:
    """Let the hardware fall silent, and let the package's patience with it end at once."""

    def fail(registers: object) -> None:
        raise HardwareLayerException("no answer")

    hardware = unit.inside.uod.hwl
    hardware.decorated.read_batch = fail
    hardware.config.reconnect_timeout_seconds = hardware.config.error_timeout_seconds = -1
    unit.tick(3)  # an issue, reconnecting, an error


def test_a_whole_session_goes_out_as_the_package_serialises_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each message of a session that has everything is the package's own, to the letter."""
    monkeypatch.setattr(_run_log, "PROGRESS_S_MAX", 0)
    with ticked_demo(secret="s") as unit:  # noqa: S106
        builder, tap, posted = unit.engine.builder, Tap(), list[em.EngineMessage]()
        unit.set_method(*METHOD)
        tap.put_into(builder)
        outbox = MemoryOutbox()
        runner = EngineRunner(
            EngineDispatcher(handlers=PlainEngine()), builder, _Nobody(), outbox=outbox
        )
        enter = Intake._enter

        def checked(intake: Intake, message: em.EngineMessage, ready: Any) -> None:
            tap.check(message)
            posted.append(message)
            enter(intake, message, ready)

        monkeypatch.setattr(Intake, "_enter", checked)
        unit.engine.emitter.add_listener(runner)
        tap.check(builder.create_uod_info())

        def sample() -> None:
            run_id = outbox.run_id
            tap.check(builder.create_tag_updates_msg(run_id))
            tap.check(builder.create_control_state_msg())
            tap.check(builder.create_method_state_msg())
            tap.check(builder.create_method_msg())
            tap.check(builder.create_error_log_msg())
            tap.check(builder.create_queued_runlog_msg())
            if run_id is not None:
                ours = builder.create_runlog_msg(run_id)
                tap.made.append(builder._builder.create_runlog_msg(run_id))
                tap.check(ours)

        unit.tick()
        tap.check(builder.create_tag_updates_snapshot_msg())
        unit.inside.inject_code("Mark: waits for a run")
        sample()
        for button in ("Start", "Pause", "Unpause", "Hold", "Unhold"):
            unit.press(button)
            sample()
        for _ in range(12):
            unit.tick()
            sample()
        unit.inside.inject_code("Mark: by hand")
        unit.tick(3)
        sample()
        unit.inside.inject_code("Category: Neither")  # this fails in the unit's command
        unit.tick(5)
        sample()
        assert unit.inside.has_error_state()
        unit.press("Stop")
        sample()
        lose_equipment(unit)
        sample()
    topics = {m.topic for m in posted if isinstance(m, em.WebPushNotificationMsg)}
    assert topics == {
        "run_start",
        "run_pause",
        "block_start",
        "watch_triggered",
        "notification_cmd",
        "method_error",
        "run_stop",
        "network_errors",
    }
    assert tap.kinds == {kind.__name__ for kind in DELIVERY if hasattr(package, kind.__name__)}


class _Nobody:
    def add_listener(self, listener: object) -> None:
        """Tell nobody."""
