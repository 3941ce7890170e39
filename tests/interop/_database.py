"""What the real aggregator has stored, read from its database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import frozen

PLOT = """
SELECT values_.tick_time, coalesce(value_int, value_float, value_str)
FROM PlotLogEntryValues AS values_
JOIN PlotLogEntries AS entries ON entries.id = values_.plot_log_entry_id
JOIN PlotLogs AS logs ON logs.id = entries.plot_log_id
WHERE logs.run_id = ? AND entries.name = ?
ORDER BY values_.id
"""


@frozen
class Database:
    """The database of an aggregator, which may be using it."""

    path: Path

    def plot(self, run_id: str, tag: str) -> list[tuple[float, Any]]:
        """Return time and value of a tag's stored samples in a run, in the order of storing."""
        return [(at, value) for at, value in self._rows(PLOT, run_id, tag)]

    def times_listed(self, run_id: str) -> int:
        """Return how often a run is listed."""
        ((times,),) = self._rows("SELECT count(*) FROM RecentRuns WHERE run_id = ?", run_id)
        return int(times)

    def _rows(self, query: str, *parameters: str) -> Iterator[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as database:
            yield from database.execute(query, parameters).fetchall()
