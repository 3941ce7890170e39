"""A stream that writes several frames at once.

A system call a frame is what sending costs most; trio-websocket writes each frame by itself, so
they are gathered below it.
"""

import trio
from attrs import define, field

KEPT_MAX = 64 * 1024
"""More is not kept (bytes): it would not be written with fewer calls."""


@define(eq=False)
class Gathering(trio.abc.Stream):
    """A stream that can keep what it is given to send, until it is given more.

    While `holds` is true, `send_all` keeps up to `KEPT_MAX` bytes; the next one behind them writes
    all of it. What is kept when the stream is closed is lost, as what stands in the kernel's
    buffers is.
    """

    _stream: trio.abc.Stream
    holds: bool = False
    _kept: bytearray = field(factory=bytearray, init=False)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.holds and len(self._kept) + len(data) <= KEPT_MAX:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._kept += data
            return
        if self._kept:
            data, self._kept = self._kept + data, bytearray()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
