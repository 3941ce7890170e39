"""An engine whose driver blocks: a balance that is asked in its own thread.

Trio's thread never waits for the driver. It shows the last value that the thread has read. Commands
go to the driver in a worker thread, and any thread may tell events.
"""

import logging
import random
import threading
import time

import trio

from trio_runner import ConnectionStatus, EngineDispatcher, EngineRunner, PlainEngine


class Driver:
    """Stands for a balance on a serial line: each call blocks, and only one runs at a time."""

    def __init__(self) -> None:
        self._lock, self._zero = threading.Lock(), 0.0

    def read(self) -> float:
        with self._lock:
            time.sleep(0.2)
            return 100 + random.gauss(0, 0.1) - self._zero

    def tare(self) -> None:
        with self._lock:
            time.sleep(1)
            self._zero = 100.0


class Balance(PlainEngine):
    grams: float | None = None  # None while the balance does not answer

    def __init__(self, driver: Driver, name: str = "Balance") -> None:
        super().__init__(name, data_log_interval_s=1)
        self.driver = driver
        self.add_reading("Weight", lambda: self.grams, "g", digits=1, between=(-10, 200))
        self.add_command("Tare", self.tare)
        self.add_plot("Weight")

    async def tare(self) -> None:
        """Take what lies on the balance for zero."""
        await trio.to_thread.run_sync(self.driver.tare, abandon_on_cancel=True)

    async def poll(self) -> None:
        """Ask the driver in a thread until cancelled; the thread then ends after its last call."""
        stopping = threading.Event()
        try:
            await trio.to_thread.run_sync(self._poll, stopping, abandon_on_cancel=True)
        finally:
            stopping.set()

    def _poll(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.1):
            before = self.grams
            try:
                self.grams = self.driver.read()
            except OSError as error:
                self.grams = None
                self.report_error(f"The balance does not answer: {error}")
            if (before is None) != (self.grams is None):
                self._tell_connection("Disconnected" if self.grams is None else "Connected")

    def _tell_connection(self, status: ConnectionStatus) -> None:
        for listener in self.listeners:
            listener.on_connection_status_change(status)


async def main(port: int = 9800) -> None:
    logging.basicConfig(level=logging.INFO)
    balance = Balance(Driver())
    runner = EngineRunner(EngineDispatcher(port=port, handlers=balance), balance, balance)
    async with trio.open_nursery() as nursery:
        for task in (balance.poll, balance.run_commands, runner.run):
            nursery.start_soon(task)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
