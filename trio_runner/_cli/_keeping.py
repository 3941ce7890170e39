"""Where an engine's outbox is: on disk unless told otherwise, and never in the engine's way."""

import logging
import os
import re
from argparse import ArgumentTypeError
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

from trio_runner import (
    DurableOutbox,
    MemoryOutbox,
    MessageBuilder,
    Outbox,
    OutboxError,
    OutboxInUse,
    OutboxNotWritable,
)
from trio_runner._cli._summary import count
from trio_runner._cli._unit_files import outbox_path
from trio_runner._outbox import OUTBOX_BYTES_MAX

logger = logging.getLogger(__name__)

MEMORY = "memory"
"""What is given instead of a path for an outbox that ends with the process."""

BYTES_MIN = 1024 * 1024
"""Less, and the samples of one short outage would be thinned."""

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

CLOSE_S = 4
"""For closing an outbox (s): more than a durable one itself waits for a disk that hangs."""


@frozen
class Keeping:
    """What the command line says of the outboxes of one command."""

    command: str
    where: str | None = None
    """A file or folder, `MEMORY`, or None for the user's state folder."""
    bytes_max: int = OUTBOX_BYTES_MAX
    is_for_several: bool = False
    """Whether the path is a folder, of several units."""

    def open(self, unit: str, builder: MessageBuilder) -> Outbox:
        """Return the outbox of a unit, and log where it is and what waits in it.

        One on disk that cannot be had is logged as an error, and one in memory is returned: an
        engine whose messages may be lost is worth more than none. Raises another `OutboxError` for
        a path that was given and is wrong.
        """
        if self.where == MEMORY:
            logger.info("The outbox is in memory: what waits is lost when the process ends")
            return MemoryOutbox(self.bytes_max)
        try:
            outbox = self._claimed(self._path(unit), builder)
        except OutboxError as error:
            is_theirs = self.where is not None
            if is_theirs and not isinstance(error, OutboxInUse | OutboxNotWritable):
                raise
            logger.error(
                "%s What waits is kept in MEMORY ONLY, and is lost when the process ends", error
            )
            return MemoryOutbox(self.bytes_max)
        logger.info("The outbox is %s: %s", outbox.path, _what_waits(outbox))
        return outbox

    def _path(self, unit: str) -> Path:
        if self.where is None:
            return _unit_in(state_folder() / self.command, unit)
        path = Path(self.where)
        if not self.is_for_several and not path.is_dir():
            return path
        if path.exists() and not path.is_dir():
            raise OutboxError(f"Several UODs need a folder, and {path} is none.")
        return _unit_in(path, unit)

    def _claimed(self, path: Path, builder: MessageBuilder) -> DurableOutbox:
        """Open an outbox in which nothing of another unit waits."""
        register = builder.create_register_engine_msg()
        outbox = DurableOutbox(path, bytes_max=self.bytes_max)
        try:
            outbox.claim(f"{register.computer_name}_{register.uod_name}")
        except OutboxError:
            outbox.close()
            raise
        return outbox


@asynccontextmanager
async def closing(outbox: Outbox) -> AsyncGenerator[None, None]:
    """Close the outbox behind the block, in a thread: its disk may hang, and Trio's must not wait.

    That takes `CLOSE_S` at most, also if cancelled; then the thread is left behind, and said so.
    """
    try:
        yield
    finally:
        with trio.move_on_after(CLOSE_S, shield=True) as patience:
            await trio.to_thread.run_sync(outbox.close, abandon_on_cancel=True)
        if patience.cancelled_caught:
            logger.error("The outbox is not closed within %d s, it is left behind", CLOSE_S)


def state_folder() -> Path:
    """Return where this program keeps what is to outlive it: of the service, or of the user."""
    service = os.environ.get("STATE_DIRECTORY")  # systemd's; with several, the first
    if service:
        return Path(service.split(":")[0])
    from platformdirs import user_state_path

    return user_state_path("trio-runner", appauthor=False)


def _unit_in(folder: Path, unit: str) -> Path:
    """Return the file of a unit in a folder, which is made if there is none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return outbox_path(folder, unit)
    except OSError as error:
        raise OutboxNotWritable(
            f"There can be no outbox in the folder {folder}: {error.strerror}."
        ) from error


def _what_waits(outbox: DurableOutbox) -> str:
    if not len(outbox):
        return "nothing waits in it from before"
    verb = "waits" if len(outbox) == 1 else "wait"
    return f"{count(len(outbox), 'message')} {verb} in it from before"


def bytes_of(text: str) -> int:
    """Return how many bytes a text like `64M` means. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)(i?B)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no size: give a number with K, M or G, as in 64M")
    number = int(match[1]) * UNITS[match[2].upper()]
    if number < BYTES_MIN:
        raise ArgumentTypeError(f"{text!r} is too small, give 1M or more")
    return number
