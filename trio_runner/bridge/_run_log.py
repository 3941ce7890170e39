"""Make the run log of a run that is on, in which most lines have ended and change no more.

A run log is made again and again while the run is on. The text of a line that has ended is kept, so
that the package is asked only for the lines that are new or go on.
"""

from types import SimpleNamespace
from typing import Any

from openpectus.engine.engine_message_builder import EngineMessageBuilder

from trio_runner.bridge._wire import to_ours
from trio_runner.protocol import dumps, encode, encode_body, foreign
from trio_runner.protocol import engine_messages as em

PROGRESS_S_PER_LINE = 0.1
PROGRESS_S_MAX = 5.0
"""How long a run log that differs only in progress is held back after the last one (s).

It is held back for 0.1 s per line, up to 5 s. A line that begins or ends is told at once."""

_NO_LINES = '"lines":[]'


class RunLogs:
    """Makes run logs with the package's builder, asking it only once for each ended line.

    Asking for all lines each time cost 0.3 ms of Trio's thread per line; copying a line's text
    costs a fiftieth of that. Call this in one thread only.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._ended: dict[tuple[str, float], str] = {}
        """The texts of the lines that have ended, by their id and end."""
        self._last: tuple[float, float, tuple[str, int], em.RunLogMsg] | None = None
        """The last message: when it was made, for how long a change of progress alone is held back
        after it, its run and how many states its lines had."""

    def create(self, run_id: str) -> em.RunLogMsg:
        """Return the current run's log; its `runlog` is in the text only, not an attribute.

        Raises Exception if the package's builder raises, or if the package is of a version that
        works differently.
        """
        now = self._engine._tick_time
        # Everything in a line but its progress comes from these states, and their number only
        # grows.
        states = sum(len(record.states) for record in self._engine.tracking.records)
        if self._last is not None:
            told_at, rest_s, told, message = self._last
            if (run_id, states) == told and 0 <= now - told_at < rest_s:
                return message
        run_log = self._engine.tracking.get_runlog()
        rest_s = min(PROGRESS_S_PER_LINE * len(run_log.items), PROGRESS_S_MAX)
        message = self._make(run_log, run_id)
        self._last = now, rest_s, (run_id, states), message
        return message

    def _make(self, run_log: Any, run_id: str) -> em.RunLogMsg:
        """Return the message: the frame of a run log without lines, and the lines put into it."""
        items = run_log.items
        obj, new = self._ask_for(run_log, [i for i in items if _key(i) not in self._ended], run_id)
        lines = [self._ended.get(_key(item)) or next(new) for item in items]
        self._ended = {
            _key(item): line
            for item, line in zip(items, lines, strict=True)
            if item.end is not None
        }
        head, _, tail = encode_body(foreign(obj, em.RunLogMsg)).partition(_NO_LINES)
        body = f'{head}"lines":[{",".join(lines)}]{tail}'
        known = {name: value for name, value in obj.items() if name != "runlog"}
        return foreign(known, em.RunLogMsg, body=body)

    def _ask_for(self, run_log: Any, items: list[Any], run_id: str) -> Any:
        """Return a run log's JSON object without its lines, and the lines of `items` as texts.

        The package's builder asks an engine for its run log. Here the engine is a stand-in whose
        run log has only the lines that are asked for.
        """
        run_log.items = items
        tracking = SimpleNamespace(get_runlog=lambda: run_log)
        seen = SimpleNamespace(uod=self._engine.uod, tracking=tracking)
        made = EngineMessageBuilder(seen, "", False).create_runlog_msg(run_id)
        obj = encode(to_ours(made, em.RunLogMsg))
        lines, obj["runlog"]["lines"] = obj["runlog"]["lines"], []
        if len(lines) != len(items):
            raise ValueError(f"{len(items)} items of a run log have become {len(lines)} lines")
        return obj, map(dumps, lines)


def _key(item: Any) -> tuple[str, float]:
    return item.id, item.end
