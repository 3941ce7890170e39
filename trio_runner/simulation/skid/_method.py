"""The method: its lines, how far each has come, and which edits are possible during a run."""

from collections.abc import Iterable
from enum import Enum, auto

from attrs import define, field

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl
from trio_runner.simulation.skid._pcode import Line, parse, walk

EMPTY = mdl.Method(version=0, lines=[mdl.MethodLine(id="0", content="")])
"""A method with one empty line, since the page needs a line to write in."""


class LineState(Enum):
    """How far a line has come."""

    STARTED = auto()
    EXECUTED = auto()
    FAILED = auto()


BEGUN = (LineState.STARTED, LineState.EXECUTED)
"""Lines in these states cannot be edited. A failed line can be, and is tried again."""


@define
class Method:
    """A method, with the states of its lines and of injected lines."""

    model: mdl.Method = EMPTY
    root: Line = field(init=False)
    _lines: dict[str, Line] = field(init=False)
    _states: dict[str, LineState] = field(init=False, factory=dict)
    _injected_ids: list[str] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        """Parse the lines."""
        self._put(self.model)

    def reset(self) -> None:
        """Forget the states of all lines."""
        self._states.clear()
        self._injected_ids.clear()

    def replace(self, model: mdl.Method, *, in_run: bool) -> None:
        """Take this method.

        Raises:
            CommandError: a run is on and the edit touches lines that have begun; nothing changes.
        """
        model = model if model.lines else mdl.Method(version=model.version, lines=EMPTY.lines)
        if in_run:
            self._check_edit(model)
        else:
            self.reset()
        self._put(model)

    def inject(self, code: str) -> Line:
        """Return the root of this code's tree, whose lines get ids that no method has."""
        first = len(self._injected_ids) + 1
        lines = [
            mdl.MethodLine(id=f"-{number}", content=content)
            for number, content in enumerate(code.splitlines(), start=first)
        ]
        self._injected_ids += [line.id for line in lines]
        root = parse(lines)
        root.id = "injected"
        return root

    def is_injected(self, line: Line) -> bool:
        """Tell whether the line was injected and is not one of the method's."""
        return line.id in self._injected_ids

    def mark(self, line: Line, state: LineState) -> None:
        """Note the state of a line."""
        self._states[line.id] = state

    def next_line(self, scope: Line) -> Line | None:
        """Return the first line of the scope's body that has not begun or has failed."""
        current = self.root if scope.id == self.root.id else self._lines.get(scope.id, scope)
        return next((line for line in current.children if not self._has_begun(line)), None)

    def state(self) -> mdl.MethodState:
        """Return the states of the lines, from which the page colours and locks them."""
        begun = [line for line in walk(self.root) if self._has_begun(line)]
        ends = [line.id for line in begun if self._may_be_followed(line)]
        return mdl.MethodState(
            started_line_ids=self._ids_in(LineState.STARTED),
            executed_line_ids=self._ids_in(LineState.EXECUTED),
            injected_line_ids=[id_ for id_ in self._injected_ids if id_ in self._states],
            content_locked_line_ids=ends,
            locked_line_ids=[line.id for line in begun if line.id not in ends],
            failed_line_ids=self._ids_in(LineState.FAILED),
        )

    def _put(self, model: mdl.Method) -> None:
        self.model = model
        self.root = parse(model.lines)
        self._lines = {line.id: line for line in walk(self.root)}

    def _has_begun(self, line: Line) -> bool:
        return self._states.get(line.id) in BEGUN

    def _ids_in(self, state: LineState) -> list[str]:
        ids = [line.id for line in walk(self.root)] + self._injected_ids
        return [id_ for id_ in ids if self._states.get(id_) is state]

    def _may_be_followed(self, line: Line) -> bool:
        """Tell whether a line inserted after this one, in the same body, would be carried out."""
        parent = line.parent
        assert parent is not None
        return line is parent.children[-1] and not self._is_over(parent)

    def _is_over(self, scope: Line) -> bool:
        return self._states.get(scope.id) is LineState.EXECUTED

    def _check_edit(self, model: mdl.Method) -> None:
        ids = [line.id for line in model.lines]
        if len(set(ids)) < len(ids):
            raise CommandError("Two lines of the method have the same id")
        new = list(walk(parse(model.lines)))
        self._check_begun_lines_are_kept({line.id: line for line in new})
        for line in new:
            if not self._has_begun(line):
                self._check_line_can_be_reached(line)

    def _check_begun_lines_are_kept(self, new: dict[str, Line]) -> None:
        begun = [line for line in self._lines.values() if self._has_begun(line)]
        for line in begun:
            if line.id not in new:
                raise CommandError(f"The line '{line.text}' has begun and cannot be removed")
            if new[line.id].text != line.text or _parent_id(new[line.id]) != _parent_id(line):
                raise CommandError(f"The line '{line.text}' has begun and cannot be edited")
        if [id_ for id_ in new if self._states.get(id_) in BEGUN] != [line.id for line in begun]:
            raise CommandError("Lines that have begun cannot change places")

    def _check_line_can_be_reached(self, line: Line) -> None:
        assert line.parent is not None
        old = self._lines.get(line.id)
        is_new = old is None or old.text != line.text or _parent_id(old) != _parent_id(line)
        if is_new and self._is_over(line.parent):
            raise CommandError(f"'{line.parent.text}' has ended, '{line.text}' cannot go in there")
        for later in _after(line, line.parent.children):
            if self._has_begun(later):
                raise CommandError(
                    f"The line '{line.text}' cannot go before '{later.text}', which has begun"
                )


def _parent_id(line: Line) -> str | None:
    return None if line.parent is None else line.parent.id


def _after(line: Line, lines: list[Line]) -> Iterable[Line]:
    return lines[lines.index(line) + 1 :]
