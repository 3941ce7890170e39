"""The least that such work can cost: bare clients of trio-websocket that send and are answered.

They have no rules, no encoding and nothing else to do. A text is as long as a compressed sample.
The clients send in groups, at 12 common instants between two samples.
"""

import itertools
import json

import trio
import trio_websocket

from tests.bench.blaster import frame, message
from tests.bench.lines import hear, job, tell
from tests.bench.work import STEADY_S, Plant, begin, cpu

TAGS = 5
GROUPS = 12


async def client(port: int, number: int, ready: trio.Event) -> None:
    """When it is this client's turn, send and wait for the answer, again and again."""
    text = message(number, Plant(TAGS))[len(frame(b" " * 1000)) - 1000 :].decode()
    url = f"ws://127.0.0.1:{port}/engine-rpc"
    async with trio_websocket.open_websocket_url(url) as websocket:
        await websocket.get_message()  # it asks for our id
        response = {"result": f"floor{number}", "result_type": "str", "call_id": "1"}
        await websocket.send_message(json.dumps({"request": None, "response": response}))
        ready.set()
        first = trio.current_time() // STEADY_S * STEADY_S + number % GROUPS * STEADY_S / GROUPS
        for turn in itertools.count(1):
            await trio.sleep_until(first + turn * STEADY_S)
            await websocket.send_message(text)
            await websocket.get_message()


async def clients(port: int, count: int) -> None:
    """Run this many clients; tell when all are there, and then obey."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            ready = trio.Event()
            nursery.start_soon(client, port, number, ready)
            await ready.wait()
        tell(ready=True)
        while True:
            await trio.to_thread.run_sync(hear)
            tell(**cpu())


if __name__ == "__main__":
    begin()
    trio.run(lambda: clients(**job()))
