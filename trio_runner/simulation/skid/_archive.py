"""The archive of a run: the sampled tags as the text of a CSV file."""

import csv
import io
from datetime import UTC, datetime

from attrs import define, field

from trio_runner.simulation.skid._skid import SKID_TAGS
from trio_runner.simulation.skid._tags import SYSTEM_TAGS, Tags

MAX_ROWS = 50_000
"""The most rows. A row has about 110 bytes, and an aggregator takes messages of up to 16 MiB."""

_ROUNDING_S = 1e-6
"""Ticks add up with rounding errors. Allow for them, so that no row is late or doubled."""

_SYSTEM_COLUMNS = ("Run Time", "Process Time", "System State", "Block", "Mark")
_COLUMNS = tuple(tag for tag in SYSTEM_TAGS if tag.name in _SYSTEM_COLUMNS) + SKID_TAGS


@define
class Archive:
    """Rows sampled every `interval_s` seconds of run time.

    When there are `max_rows`, every second row is dropped and the interval doubles. So a run of any
    length is covered from end to end.
    """

    filename: str
    interval_s: float
    max_rows: int = MAX_ROWS
    _rows: list[str] = field(init=False, factory=list)
    _next_row_s: float = field(init=False, default=0.0)

    def sample(self, run_s: float, tick_time: float, tags: Tags) -> None:
        """Add a row if one is due at this run time."""
        run_s += _ROUNDING_S
        if run_s < self._next_row_s:
            return
        self._rows.append(_row(tick_time, tags))
        if len(self._rows) >= self.max_rows:
            del self._rows[1::2]
            self.interval_s *= 2
        self._next_row_s = self.interval_s * (run_s // self.interval_s + 1)

    def text(self) -> str:
        """Return the header and the rows; each line ends in a line feed."""
        header = [f"{t.name} [{t.unit}]" if t.unit else str(t.name) for t in _COLUMNS]
        return _csv_line(["Datetime (UTC)", *header]) + "".join(self._rows)


def archive_filename(tick_time: float) -> str:
    """Return the archive's file name for a run that began at `tick_time` (s since the epoch)."""
    return datetime.fromtimestamp(tick_time, UTC).strftime("archive-%Y-%m-%d_%H%M%S.csv")


def _row(tick_time: float, tags: Tags) -> str:
    values = (tags.value(tag.name) for tag in _COLUMNS)
    cells = [f"{value:.5f}" if isinstance(value, float) else value for value in values]
    return _csv_line([str(datetime.fromtimestamp(tick_time, UTC)), *cells])


def _csv_line(cells: list[float | int | str | None]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
