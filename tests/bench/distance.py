"""A distance: a TCP proxy that passes everything on, later by half a round trip each way.

It uses only the standard library.
"""

import asyncio

from tests.bench.lines import hear, job, tell


async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, late_s: float) -> None:
    """Pass everything on until the end, each piece this much later (s) than it came."""
    loop = asyncio.get_running_loop()
    while data := await source.read(1 << 18):
        loop.call_later(late_s, sink.write, data)
    loop.call_later(late_s, sink.close)


async def run(port: int, round_trip_s: float) -> None:
    """Listen, tell the port, and serve until told to stop."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            carry(reader, far_writer, round_trip_s / 2), carry(far_reader, writer, round_trip_s / 2)
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    tell(ports=[server.sockets[0].getsockname()[1]])
    while True:
        await asyncio.to_thread(hear)


if __name__ == "__main__":
    asyncio.run(run(**job()))
