"""A user's code that mypy --strict must accept, and wrong code that it must refuse.

It is checked and never run. A needless `ignore` is an error, so each one here is a mistake that the
types find.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import trio

from trio_runner import (
    CommandHandlers,
    Dialer,
    DurableOutbox,
    EngineDispatcher,
    EngineRunner,
    EventEmitter,
    EventListener,
    MemoryOutbox,
    MessageBuilder,
    NetworkOptions,
    Outbox,
    PlainEngine,
    RecoverState,
    RunStateChange,
    StateChange,
    Timing,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator, SimulatedEngine


class Engine(PlainEngine):
    def read_tags(self) -> list[mdl.TagValue]:
        return [mdl.TagValue(name="A", tick_time=self.clock(), value=1, value_unit=None)]


engine = Engine("Unit", location="Lab", data_log_interval_s=1)
builder: MessageBuilder = engine
emitter: EventEmitter = engine
handlers: CommandHandlers = engine
simulated: MessageBuilder = SimulatedEngine()

options: NetworkOptions = {"secure": True, "proxy": False, "ca_file": Path("ca.pem")}
dispatcher = EngineDispatcher("host", 443, handlers=handlers, **options)
dialer: Dialer = dispatcher

memory: Outbox = MemoryOutbox(bytes_max=1000)
durable: Outbox = DurableOutbox("unit.outbox")
runner = EngineRunner(
    dispatcher, builder, emitter, timing=Timing(steady_s=1), outbox=durable, resume_run=None
)
listener: EventListener = runner
runner.on_start("run")
runner.on_runstate_change(RunStateChange.PAUSE)
runner.post(em.RunStartedMsg(run_id="run", started_tick=1.7e9))

assert_type(runner.state, RecoverState)
assert_type(runner.buffer_size, int)
assert_type(runner.statistics().run_id, str | None)
assert_type(runner.statistics().failures, Mapping[str, int])
assert_type(engine.current_run_id, str | None)


async def stir(rpm: float) -> None:
    """Take a number, and some time."""


engine.add_reading("Stirrer", lambda: 1.0, "rpm", digits=1, between=(0, 100), enter=stir)
engine.add_reading("Gas", lambda: "Off", choices=("Off", "On"), enter=print)
engine.add_command("Wait", trio.sleep, "s")
engine.add_plot("Stirrer")


async def announce() -> None:
    """Be a callback."""


async def before_change(before: RecoverState, after: RecoverState) -> None:
    """Be the other kind of callback."""


runner.connected_callback = announce
runner.first_steady_state_callback = None
runner.state_changing_callback = before_change


async def use() -> None:
    """Run all of it."""
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run_commands)
        await nursery.start(runner.run)
        EngineDispatcher(handlers=engine, open_stream=Aggregator().in_memory(nursery))
        with runner.state_changes() as changes:
            async for change in changes:
                assert_type(change, StateChange)
        await runner.shutdown()


# What is wrong

EngineRunner(engine, dispatcher, engine)  # type: ignore[arg-type]
EngineRunner(dispatcher, engine, engine, outbox="unit.outbox")  # type: ignore[arg-type]
EngineDispatcher("host", handlers=object())  # type: ignore[arg-type]
EngineDispatcher("host", "9800", handlers=engine)  # type: ignore[arg-type]
Timing(steady="1")  # type: ignore[call-arg]
runner.connected_callback = before_change  # type: ignore[assignment]
engine.add_reading("A", lambda: [1.0])  # type: ignore[arg-type, return-value]
mdl.TagValue("A", 0.0)  # type: ignore[call-arg]
