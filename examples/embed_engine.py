"""Embed an engine: a bath that is warmed and cools, kept connected until Ctrl-C.

Start an aggregator (`pectus-aggregator`), run this, and open http://127.0.0.1:9800.
"""

import logging
from uuid import uuid4

import trio

from trio_runner import CommandError, EngineDispatcher, EngineRunner, PlainEngine
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl


class Bath(PlainEngine):
    temperature = 20.0  # degC
    run_id: str | None = None

    def read_tags(self) -> list[mdl.TagValue]:
        now, value = self.clock(), self.temperature
        return [mdl.TagValue(name="Bath", tick_time=now, value=value, value_unit="degC")]

    def create_control_state_msg(self) -> em.ControlStateMsg:
        state = mdl.ControlState(is_running=bool(self.run_id), is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    async def execute_control_command(self, name: str) -> None:
        if name == "Start" and self.run_id is None:
            self.run_id = str(uuid4())
            for listener in self.listeners:
                listener.on_start(self.run_id)
        elif name == "Stop" and self.run_id is not None:
            self.run_id = None
            for listener in self.listeners:
                listener.on_stop()
        else:
            raise CommandError(f"The bath cannot {name} now")

    async def run(self) -> None:
        while True:
            self.temperature += ((80.0 if self.run_id else 20.0) - self.temperature) * 0.01
            await trio.sleep(0.1)


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    bath = Bath("Bath", location="Lab 1")
    runner = EngineRunner(EngineDispatcher("127.0.0.1", 9800, handlers=bath), bath, bath)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bath.run)
        nursery.start_soon(runner.run)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass  # the runner has sent what still waited
