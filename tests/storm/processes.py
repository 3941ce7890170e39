"""The processes of a storm, which get signals and must not end by themselves."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from tests.helpers.command import ENVIRONMENT

END_S = 30.0
"""How long a clean end may take (s): the engine, a flush, a hanging disk and a busy machine."""


START_S = 60.0
"""How long a start may take (s): the imports alone take seconds on a busy machine."""


ABORT_S = 5.0
"""How long a process that hangs has for writing where (s)."""


class Broken(AssertionError):
    """Raised when a promise was not kept."""


@define(eq=False)
class Engine:
    """An engine and its runner in a process, which can be started again and again."""

    name: str
    """The unit's name."""
    command: list[str]
    ready: str
    """The text that the process has written once it listens to signals."""
    outbox: Path
    log: Path
    killed_at: list[float] = field(factory=list, init=False)
    """When it was killed (s since the epoch)."""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _said_before: int = field(default=0, init=False)
    """The length of the log when the process was started (bytes)."""

    def start(self) -> None:
        """Start the process unless it runs. Raises Broken if it has ended by itself."""
        self.check()
        if self._process is None:
            with self.log.open("ab") as log:
                self._said_before = log.tell()
                self._process = subprocess.Popen(
                    self.command,
                    env={**ENVIRONMENT, "PYTHONWARNINGS": "default", "PYTHONFAULTHANDLER": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )

    def check(self) -> None:
        """Raise Broken if the process has ended by itself."""
        process = self._process
        if process is not None and process.poll() is not None:
            self._process = None
            raise Broken(f"{self.name} ended by itself: {process.returncode}\n{self._last_words()}")

    def kill(self) -> None:
        """Kill the process, as a crash does."""
        process, self._process = self._process, None
        if process is not None:
            self.killed_at.append(time.time())
            process.kill()
            process.wait()

    async def stop(self) -> None:
        """End the process cleanly. Raises Broken if that fails or takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        with trio.move_on_after(START_S):
            while self.ready not in self._words():  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(END_S):
            while process.poll() is None:  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
            with suppress(subprocess.TimeoutExpired):
                process.wait(ABORT_S)
            process.kill()
            process.wait()
        if process.returncode != 0:
            raise Broken(f"{self.name} ended with {process.returncode}\n{self._last_words()}")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it runs."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _words(self) -> str:
        return self.log.read_bytes()[self._said_before :].decode(errors="replace")

    def _last_words(self) -> str:
        return self._words()[-4000:]
