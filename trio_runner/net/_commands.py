"""The aggregator's commands while they are carried out, outside any link and outside the runner.

We cannot control what an engine's handler does: it may wait in a thread that cannot be cancelled,
or raise while it is being cancelled. So each command runs in a system task of Trio's, for which no
nursery waits. When its time is up, the command is cancelled and the aggregator is answered at that
moment, whether the handler ends or not.
"""

import contextvars
import logging
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import trio
from attrs import define, field

from trio_runner._groups import leaves
from trio_runner._mistakes import BLOCKED_S
from trio_runner._printable import printable
from trio_runner._say_once import SayOnce
from trio_runner._warnings import Warnings
from trio_runner.protocol import messages as m

logger = logging.getLogger(__name__)

COMMANDS_MAX = 16
"""How many commands may run at once, those left behind included.

Trio has 40 threads for the whole process."""

END_S = 1
"""How long to wait for running commands when the runner ends (s)."""

Dispatch = Callable[[object], Coroutine[Any, Any, m.MessageBase]]
"""Carries out a message from the aggregator, given as parsed JSON, and returns the answer."""


@define(eq=False)
class _Command:
    """A message that is being carried out."""

    name: str
    scope: trio.CancelScope
    begun: float = field(factory=trio.current_time)
    ended: trio.Event = field(factory=trio.Event)
    reply: m.MessageBase | None = None

    @property
    def age_s(self) -> float:
        return trio.current_time() - self.begun


@define(eq=False)
class Commands:
    """The commands of one aggregator that have begun and have not ended."""

    _dispatch: Dispatch
    warnings: Warnings = field(factory=Warnings, init=False)
    """Where warnings for the unit's error log go."""
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    _open: set[_Command] = field(factory=set, init=False)

    async def carry_out(self, message_json: object, answer_s: float) -> m.MessageBase:
        """Carry out a message and return the answer within `answer_s` seconds.

        The answer is an ErrorMessage if the handler raises or is too late, or if `COMMANDS_MAX`
        others still run. If cancelled, the message is still carried out, within the same time.
        """
        name = _name(message_json)
        if len(self._open) >= COMMANDS_MAX:
            self._say(
                logging.WARNING, "Refused %s: %d other commands have not ended", name, COMMANDS_MAX
            )
            return m.ErrorMessage(message=f"The engine is still busy with {COMMANDS_MAX} commands")
        command = _Command(name, trio.CancelScope(deadline=trio.current_time() + answer_s))
        self._open.add(command)
        context = contextvars.copy_context()
        trio.lowlevel.spawn_system_task(
            self._run, command, message_json, name=f"command {name}", context=context
        )
        with trio.move_on_after(answer_s) as patience:
            await command.ended.wait()
        if patience.cancelled_caught or command.reply is None:
            logger.warning(
                "%s was not carried out within %g s: its handler was cancelled", name, answer_s
            )
            late = f"The engine did not carry this out within {answer_s:g} s"
            return m.ErrorMessage(message=late)
        return command.reply

    async def _run(self, command: _Command, message_json: object) -> None:
        try:
            with command.scope:
                step_s = partial(self._note_step, command.name)
                command.reply = await _timed(self._dispatch(message_json), step_s)
        except BaseException as error:  # noqa: ASYNC103 - raised here, it would crash Trio itself
            if any(not isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
                logger.error("The handler of %s raised", command.name, exc_info=error)
                command.reply = m.ErrorMessage(
                    message=f"The engine failed to handle {command.name}",
                    exception_message=printable(str(error)),
                )
        finally:
            self._open.discard(command)
            command.ended.set()
            if trio.current_time() > command.scope.deadline:
                logger.warning(
                    "The handler of %s has ended after %.1f s", command.name, command.age_s
                )

    def _note_step(self, name: str, took_s: float) -> None:
        if took_s < BLOCKED_S:
            return
        text = (
            f"The handler of {name} has blocked Trio's thread for {took_s:.1f} s, and nothing was"
            " sent or answered meanwhile: it should do what blocks in a thread of its own"
        )
        self._say(logging.WARNING, "%s", text, about=f"blocked {name}")
        self.warnings.tell(logging.WARNING, text, about=f"blocked {name}")

    async def end(self) -> None:
        """Cancel what still runs and wait for it up to `END_S`; the rest is left behind."""
        still_open = list(self._open)
        for command in still_open:
            command.scope.deadline = math.inf  # so that it is not reported as late
            command.scope.cancel()
        with trio.move_on_after(END_S):
            for command in still_open:
                await command.ended.wait()
        for command in self._open:
            logger.error(
                "The handler of %s has run for %.1f s and does not end although it was cancelled:"
                " it is left behind",
                command.name,
                command.age_s,
            )


@types.coroutine
def _timed(
    work: Coroutine[Any, Any, m.MessageBase], note_s: Callable[[float], None]
) -> Generator[Any, Any, m.MessageBase]:
    """Run a coroutine unchanged and report how long each of its steps took (s).

    A step runs from one suspension of the coroutine to the next.
    """
    resume: Callable[[], Any] = partial(work.send, None)
    while True:
        began = time.perf_counter()
        try:
            waits_for = resume()
        except StopIteration as ended:
            reply: m.MessageBase = ended.value
            return reply
        finally:
            note_s(time.perf_counter() - began)
        try:
            resume = partial(work.send, (yield waits_for))
        except BaseException as error:  # noqa: ASYNC103 - thrown into the work, which raises it
            resume = partial(work.throw, error)


def _name(message_json: object) -> str:
    """Return the type that a message names, for the log."""
    named = message_json.get("_type") if isinstance(message_json, dict) else None
    return printable(named) if isinstance(named, str) else "a message without a type"
