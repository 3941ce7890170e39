"""Carries out P-code: the method, its watches and injected code, each in its own strand.

A *strand* is a sequence of lines that are carried out one after the other. Strands go on side by
side: that of the method, one for each watch, and one for each piece of *injected code*, which is
what a person enters during the run. A *scope* is a body of lines that has begun and not ended, such
as the lines of a block. The scopes of a strand lie in each other, the innermost last.

At a tick, every strand ends what it waits for and begins one line. A strand's position follows from
which lines have begun, so lines that have not begun may be edited at any time.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from trio_runner._errors import CommandError
from trio_runner.simulation.skid._commands import check
from trio_runner.simulation.skid._method import LineState, Method
from trio_runner.simulation.skid._pcode import Line, TagReading, parse_condition, parse_quantity
from trio_runner.simulation.skid._runlog import RunLog, RunLogEntry
from trio_runner.simulation.skid._skid import COMMANDS

_ROUNDING_S = 1e-6
"""Ticks add up with rounding errors. Allow for them, so that no wait takes a tick longer."""


class Host(Protocol):
    """What the interpreter asks of the engine. A `CommandError` in `carry_out` fails the line."""

    @property
    def is_advancing(self) -> bool:
        """Whether a run is on that is neither paused nor held."""

    @property
    def method_s(self) -> float:
        """The time that the run has spent advancing (s)."""

    def read_tag(self, name: str) -> TagReading:
        """Return a tag's value and unit."""

    def carry_out(self, name: str, argument: str) -> None:
        """Carry out a command that takes no time."""

    def pause(self, duration_s: float | None = None) -> None:
        """Pause the run, for this time or until it is unpaused."""

    def unpause(self) -> None:
        """Let a paused run go on."""

    def hold(self, duration_s: float | None = None) -> None:
        """Hold the run, for this time or until it is unheld."""

    def unhold(self) -> None:
        """Let a held run go on."""

    def stop(self) -> None:
        """End the run."""

    def on_block(self, name: str | None, *, has_begun: bool) -> None:
        """Note the method's innermost block, or None outside blocks."""

    def on_watch(self, condition: str) -> None:
        """Note that a watch's condition has come true."""

    def on_failure(self, error: CommandError, line: Line) -> None:
        """Note that a line failed."""


@define(eq=False)
class Scope:
    """An open body of lines: that of the method, a block, a watch or injected code."""

    line: Line
    entry: RunLogEntry | None = None
    began_s: float = 0.0


@define(eq=False)
class Pending:
    """What a strand waits for before its next line."""

    line: Line
    entry: RunLogEntry
    is_over: Callable[[], bool]
    on_over: Callable[[], None]
    on_cancel: Callable[[], None] | None = None
    progress: Callable[[], float | None] = lambda: None


@define(eq=False)
class Strand:
    """Lines that follow each other. `outer` are the scopes around a watch, outermost first."""

    scopes: list[Scope]
    outer: list[Scope] = field(factory=list)
    pending: Pending | None = None
    waiting_code: str | None = None


@define
class Interpreter:
    """Carries out the method and the injected code of one run."""

    _host: Host
    _method: Method
    run_log: RunLog
    _main: Strand = field(init=False)
    _strands: list[Strand] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Create the method's strand."""
        self._main = Strand([Scope(self._method.root)])
        self._strands = [self._main]

    @property
    def waiting_code(self) -> list[str]:
        """The injected code that has not begun."""
        return [strand.waiting_code for strand in self._strands if strand.waiting_code is not None]

    @property
    def block_s(self) -> float:
        """The time spent advancing since the method's innermost block began (s)."""
        return self._host.method_s - self._main.scopes[-1].began_s

    def inject(self, code: str) -> None:
        """Carry out this code alongside the method."""
        self._strands.append(Strand([Scope(self._method.inject(code))], waiting_code=code))

    def tick(self) -> None:
        """Let every strand do what is due, in the order in which the strands were created."""
        for strand in list(self._strands):
            if self._host.is_advancing and strand in self._strands:
                self._advance(strand)

    def stop(self) -> None:
        """End everything that is open."""
        for strand in list(self._strands):
            self._close(strand, strand.scopes)
        self._strands.clear()

    def cancel(self, exec_id: str) -> None:
        """Cancel the instruction with this id in the run log.

        Raises:
            CommandError: there is no such instruction, or it cannot be cancelled (any more).
        """
        entry = self.run_log.find(exec_id)
        pending = self._pending_of(entry)
        if pending is None or pending.on_cancel is None:
            raise CommandError(f"'{entry.command_name}' cannot be cancelled")
        pending.on_cancel()
        entry.cancelled = True

    def force(self, exec_id: str) -> None:
        """End the wait of the instruction with this id in the run log, at the next tick.

        Raises:
            CommandError: there is no such instruction, or it does not wait (any more).
        """
        entry = self.run_log.find(exec_id)
        if not entry.forcible:
            raise CommandError(f"'{entry.command_name}' cannot be forced")
        entry.forced, entry.forcible = True, False

    def _pending_of(self, entry: RunLogEntry) -> Pending | None:
        pendings = (strand.pending for strand in self._strands)
        return next((p for p in pendings if p is not None and p.entry is entry), None)

    def _advance(self, strand: Strand) -> None:
        if strand.pending is not None and not self._pending_is_over(strand, strand.pending):
            return
        line = self._method.next_line(strand.scopes[-1].line)
        if line is not None:
            self._begin(strand, line)
        elif strand is not self._main and strand.scopes[-1].line.name != "Block":
            self._remove(strand)  # but a block, or the whole method, waits for a line to end it

    def _pending_is_over(self, strand: Strand, pending: Pending) -> bool:
        pending.entry.progress = pending.progress()
        if not (pending.entry.forced or pending.is_over()):
            return False
        strand.pending = None
        pending.on_over()
        return True

    def _begin(self, strand: Strand, line: Line) -> None:
        strand.waiting_code = None
        self._method.mark(line, LineState.STARTED)
        entry = self.run_log.begin(line.text)
        try:
            check(line, COMMANDS)
            self._carry_out(strand, line, entry)
        except CommandError as error:
            self._fail(strand, line, entry, error)

    def _fail(self, strand: Strand, line: Line, entry: RunLogEntry, error: CommandError) -> None:
        entry.failed = True
        self._end(line, entry, LineState.FAILED)
        if self._method.is_injected(line):
            self._remove(strand)
        self._host.on_failure(error, line)

    def _carry_out(self, strand: Strand, line: Line, entry: RunLogEntry) -> None:
        match line.name:
            case "Wait":
                self._wait(strand, line, entry)
            case "Block":
                strand.scopes.append(Scope(line, entry, self._host.method_s))
                self._tell_block(has_begun=True, strand=strand)
            case "End block":
                self._end_block(strand, line, entry)
            case "Watch":
                self._watch(strand, line, entry)
            case "Pause":
                self._interrupt(strand, line, entry, self._host.pause, self._host.unpause)
            case "Hold":
                self._interrupt(strand, line, entry, self._host.hold, self._host.unhold)
            case "Stop":
                self._end(line, entry)  # first, since the run's end makes the run log final
                self._host.stop()
            case _:
                self._host.carry_out(line.name, line.argument)
                self._end(line, entry)

    def _wait(self, strand: Strand, line: Line, entry: RunLogEntry) -> None:
        duration_s = parse_quantity(line.argument, "s")
        began_s = self._host.method_s

        def progress() -> float:
            if duration_s == 0 or entry.forced:
                return 1.0
            return min(1.0, (self._host.method_s - began_s + _ROUNDING_S) / duration_s)

        entry.forcible, entry.progress = True, 0.0
        strand.pending = Pending(
            line,
            entry,
            is_over=lambda: progress() >= 1,
            on_over=lambda: self._end(line, entry),
            progress=progress,
        )

    def _watch(self, strand: Strand, line: Line, entry: RunLogEntry) -> None:
        condition = parse_condition(line.argument, self._host.read_tag)
        watch = Strand([Scope(line, entry)], outer=strand.outer + strand.scopes)

        def on_over() -> None:
            entry.forcible = entry.cancellable = False
            self._host.on_watch(line.argument)

        entry.forcible = entry.cancellable = True
        watch.pending = Pending(
            line,
            entry,
            is_over=lambda: condition.holds(self._host.read_tag),
            on_over=on_over,
            on_cancel=lambda: self._remove(watch),
        )
        self._strands.append(watch)

    def _interrupt(
        self,
        strand: Strand,
        line: Line,
        entry: RunLogEntry,
        begin: Callable[[float | None], None],
        end: Callable[[], None],
    ) -> None:
        """Pause or hold. With a duration, the line lasts until the run goes on for any reason."""
        if not line.argument:
            self._end(line, entry)
            begin(None)
            return
        entry.cancellable = True
        strand.pending = Pending(
            line,
            entry,
            is_over=lambda: True,  # no strand asks before the run goes on
            on_over=lambda: self._end(line, entry),
            on_cancel=end,
        )
        begin(parse_quantity(line.argument, "s"))

    def _end_block(self, strand: Strand, line: Line, entry: RunLogEntry) -> None:
        """End the innermost block around the line, or else the block that the method is in."""
        scopes = self._main.scopes + strand.outer + strand.scopes
        block = next((scope for scope in reversed(scopes) if scope.line.name == "Block"), None)
        if block is None:
            raise CommandError("There is no block to end")
        self._end(line, entry)
        for other in list(self._strands):
            if block in other.outer:
                self._remove(other)
            elif block in other.scopes:
                self._close(other, other.scopes[other.scopes.index(block) :])
        self._tell_block(has_begun=False, strand=self._main)

    def _tell_block(self, *, has_begun: bool, strand: Strand) -> None:
        line = strand.scopes[-1].line
        self._host.on_block(line.argument or None, has_begun=has_begun)

    def _remove(self, strand: Strand) -> None:
        self._close(strand, strand.scopes)
        self._strands.remove(strand)

    def _close(self, strand: Strand, scopes: list[Scope]) -> None:
        """End these innermost scopes of the strand, and what it waits for in them."""
        if strand.pending is not None:
            strand.pending.entry.cancelled = True
            self._end(strand.pending.line, strand.pending.entry)
            strand.pending = None
        for scope in reversed(scopes):
            if scope.entry is not None:
                self._end(scope.line, scope.entry)
        strand.scopes = strand.scopes[: len(strand.scopes) - len(scopes)]

    def _end(self, line: Line, entry: RunLogEntry, state: LineState = LineState.EXECUTED) -> None:
        self._method.mark(line, state)
        if entry.end is None:
            self.run_log.end(entry)
