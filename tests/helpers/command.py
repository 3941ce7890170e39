"""The real command `trio-runner` as a process, to be watched and signalled."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import trio
from attrs import define, field

from trio_runner._outbox_sqlite import summarize
from trio_runner.simulation.stand_ins._change import Change

COMMAND = [sys.executable, "-m", "trio_runner"]
DEADLINE_S = 40
UNWANTED = {
    *("TRIO_RUNNER_SECRET", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"),
    *("JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
}
"""Environment variables of the test run that would change what the command does."""

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in UNWANTED and not name.lower().endswith("_proxy")
} | {
    "PYTHONWARNINGS": "error",
    "PYTHONUTF8": "1",
}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and a command would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@define(eq=False)
class Command:
    """A running command, what it has written so far, and its exit code once it has ended."""

    process: trio.Process
    out: str = field(default="", init=False)
    err: str = field(default="", init=False)
    _written: Change = field(factory=Change, init=False)

    async def until(self, text: str, *, times: int = 1) -> None:
        """Wait until the text has been written to stdout or stderr this many times."""
        await self._written.wait_until(lambda: (self.out + self.err).count(text) >= times)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def code(self) -> int | None:
        """The exit code, negative if a signal ended the process, or None while it runs."""
        return self.process.returncode

    async def read(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        with suppress(trio.ClosedResourceError):  # `hang_up`
            async for data in stream:
                setattr(self, name, getattr(self, name) + data.decode())
                self._written.notify()

    async def hang_up(self) -> None:
        """Close the pipe that its stdout goes to."""
        assert self.process.stdout is not None
        await self.process.stdout.aclose()


@asynccontextmanager
async def running(
    *arguments: str,
    program: Sequence[str] = COMMAND,
    environment: Mapping[str, str] = MappingProxyType({}),
    deadline_s: float = DEADLINE_S,
) -> AsyncGenerator[Command, None]:
    """Run the command with `environment` added to its own, and wait for its end after the block.

    Files that it keeps in its default place go to a temporary folder, never to the user's.
    """
    with TemporaryDirectory() as state, trio.fail_after(deadline_s):
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                [*program, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
                env={**ENVIRONMENT, "XDG_STATE_HOME": state, **environment},
            )
            process: trio.Process = await nursery.start(start)
            command = Command(process)
            assert process.stdout is not None
            assert process.stderr is not None
            nursery.start_soon(command.read, process.stdout, "out")
            nursery.start_soon(command.read, process.stderr, "err")
            yield command


async def ran(
    *arguments: str,
    program: Sequence[str] = COMMAND,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Command:
    """Run the command to its end, and return it."""
    async with running(*arguments, program=program, environment=environment) as command:
        pass
    return command


def samples_on_disk(path: Path) -> int:
    """Return how many samples wait in an outbox, even while another process writes it."""
    return summarize(path).counts.get("TagsUpdatedMsg", 0) if path.exists() else 0


async def sampled(path: Path, before: int = 0) -> None:
    """Wait until more samples wait in an outbox than before: the first comes within a second."""
    with trio.fail_after(60):
        while samples_on_disk(path) <= before:  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.05)
