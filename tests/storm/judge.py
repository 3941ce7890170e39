"""A check of the aggregator's database against what the engine has written down."""

import json
import math
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from attrs import frozen

from .unit import LOG_INTERVAL_S, TAG

SURE_S = 2.0
"""How long before a kill everything is sure to be on the disk (s); a commit comes every 0.5 s."""

DISK_S = 40.0
"""How long after a disk was full everything that it missed is sure to be on it (s)."""

LISTED_MAX = 6
"""How often a run may be listed: once more for each time that its end is sent again."""

STORED = """
SELECT logs.run_id, samples.tick_time, coalesce(value_int, value_float)
FROM PlotLogEntryValues AS samples
JOIN PlotLogEntries AS entries ON entries.id = samples.plot_log_entry_id
JOIN PlotLogs AS logs ON logs.id = entries.plot_log_id
WHERE entries.name = ?
"""


@frozen
class Doubts:
    """The times when an engine's data may have been lost through no fault of its runner."""

    killed_at: list[float]
    """When the engine was killed (s since the epoch)."""
    disk_full: list[tuple[float, float]]
    """From when to when its disk was full (s since the epoch)."""

    def is_sure(self, at: float) -> bool:
        """Tell whether what was done at this time must have survived, whatever came later."""
        safe_at = at + SURE_S
        for began, ended in self.disk_full:
            if began - SURE_S <= at <= ended + DISK_S:
                safe_at = max(safe_at, ended + DISK_S)
        return not any(at <= killed <= safe_at for killed in self.killed_at)


@frozen
class Judge:
    """Compares a database with the notes of the unit that writes down what it does."""

    database: Path
    notes: Path

    def complaints(self, doubts: Doubts) -> list[str]:
        """Return what is missing or wrong; nothing if all promises are kept."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as file:
            begun = [run_id for (run_id,) in file.execute("SELECT run_id FROM PlotLogs")]
            listed = [run_id for (run_id,) in file.execute("SELECT run_id FROM RecentRuns")]
            stored = file.execute(STORED, (TAG,)).fetchall()
        notes = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [
            *self._of_runs(begun, listed),
            *self._of_notes(notes, doubts, listed),
            *self._of_samples(notes, doubts, stored),
        ]

    def counts(self) -> str:
        """Return how much there was to judge."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as file:
            ((runs,),) = file.execute("SELECT count(*) FROM RecentRuns")
            ((values,),) = file.execute("SELECT count(*) FROM PlotLogEntryValues")
        return f"{runs} runs listed, {values} values stored"

    def _of_runs(self, begun: list[str], listed: list[str]) -> Iterator[str]:
        """Yield each run that the aggregator knows, of any engine, and does not list as it must."""
        times = Counter(listed)
        for run_id in dict.fromkeys(begun):
            if not 1 <= times[run_id] <= LISTED_MAX:
                yield f"the run {run_id} is listed {times[run_id]} times"

    def _of_notes(
        self, notes: list[list[object]], doubts: Doubts, listed: list[str]
    ) -> Iterator[str]:
        made = {str(value): float(str(at)) for what, at, value, _ in notes if what == "begin"}
        for run_id, at in made.items():
            if doubts.is_sure(at) and run_id not in listed:
                yield f"the run {run_id} of {at} was lost"
        order = [run_id for run_id in dict.fromkeys(listed) if run_id in made]
        if order != [run_id for run_id in made if run_id in order]:
            yield f"runs are listed in a wrong order: {order}"

    def _of_samples(
        self, notes: list[list[object]], doubts: Doubts, stored: list[tuple[str, float, float]]
    ) -> Iterator[str]:
        made: dict[str, dict[int, float]] = {}
        for what, at, value, run_id in notes:
            if what == "sample" and run_id is not None:
                made.setdefault(str(run_id), {})[int(str(value))] = float(str(at))
        plots: dict[str, list[float]] = {}
        for run_id, at, value in stored:
            plots.setdefault(run_id, []).append(at)
            if run_id in made and int(value) not in made[run_id]:
                yield f"{value} is stored in the run {run_id}, of which it was no sample"
        for run_id, samples in made.items():
            times = sorted(plots.get(run_id, []))
            for value, at in samples.items():
                place = bisect_right(times, at + 1e-6)
                before = times[place - 1] if place else -math.inf
                if at - before > LOG_INTERVAL_S + 1e-6 and doubts.is_sure(at):
                    yield f"{value} of {at} is not stored in the run {run_id}"
