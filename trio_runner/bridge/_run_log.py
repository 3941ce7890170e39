"""The run log in mid-run, of which most lines stay as they are."""

from types import SimpleNamespace
from typing import Any

from openpectus.engine.engine_message_builder import EngineMessageBuilder

from trio_runner.bridge._wire import to_ours
from trio_runner.protocol import dumps, encode, encode_body, foreign
from trio_runner.protocol import engine_messages as em

PROGRESS_S_PER_LINE = 0.1
PROGRESS_S_MAX = 5.0
"""How long (s) after a run log the next may be told that differs in nothing but progress.

It is as long as all its lines are; that a line began or ended is told at once."""

_NO_LINES = '"lines":[]'


class RunLogs:
    """Makes run logs by the package's builder, which is asked for each line that has ended once.

    Asking it for all cost 0.3 ms of Trio's thread per line and time; to copy the text of one costs
    a fiftieth. To be called in one thread only.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._ended: dict[tuple[str, float], str] = {}
        self._last: tuple[float, float, tuple[str, int], em.RunLogMsg] | None = None

    def create(self, run_id: str) -> em.RunLogMsg:
        """Return the run log of the run that is on; its `runlog` is in the text only.

        Raises Exception where the package's builder does, or is of a version that does otherwise.
        """
        now = self._engine._tick_time
        # All that a line tells but its progress is made of these, and they only become more.
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
        """Return the JSON object of a run log, without lines, and the texts of those of `items`."""
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
