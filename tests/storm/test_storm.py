"""Real engines and the real aggregator as processes: killed, frozen and cut off, from a seed."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.install import Unavailable
from tests.helpers.required import go_without

from .judge import Doubts, Judge
from .storm import gathering

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

STORM_S = 40


async def test_a_storm_loses_nothing(tmp_path: Path) -> None:
    """Every run is listed, in order; every sample is stored at the data-log rate."""
    try:
        async with gathering(1, tmp_path) as storm:
            await storm.rage(STORM_S)
            await storm.judge()
    except Unavailable as error:
        go_without(str(error))


SCHEMA = """
CREATE TABLE RecentRuns (id INTEGER PRIMARY KEY, run_id TEXT);
CREATE TABLE PlotLogs (id INTEGER PRIMARY KEY, run_id TEXT);
CREATE TABLE PlotLogEntries (id INTEGER PRIMARY KEY, plot_log_id INT, name TEXT);
CREATE TABLE PlotLogEntryValues (
    plot_log_entry_id INT, tick_time FLOAT, value_str TEXT, value_float FLOAT, value_int INT);
"""

NOTES = [
    ("begin", 10.0, "a", None),
    *(("sample", 11.0 + n / 2, n, "a") for n in range(6)),
    ("end", 14.0, "a", "a"),
    ("begin", 15.0, "b", None),
    ("end", 16.0, "b", "b"),
]
"""Two runs. The first has a sample every 0.5 s, of which every second or third is stored."""


@pytest.mark.parametrize(
    ("listed", "stored", "killed_at", "complaint"),
    [
        ("ab", (0, 2, 4), None, None),
        ("aab", (0, 1, 3, 5), None, None),
        ("ba", (0, 2, 4), None, "runs are listed in a wrong order"),
        ("a", (0, 2, 4), None, "the run b of 15.0 was lost"),
        ("a", (0, 2, 4), 15.5, None),
        ("aaaaaaab", (0, 2, 4), None, "the run a is listed 7 times"),
        ("ab", (0, 4), None, "3 of 12.5 is not stored"),
        ("ab", (0, 2, 4, 9), None, "9 is stored in the run a, of which it was no sample"),
    ],
)
def test_the_judge_finds_what_is_missing_wrong_or_too_much(
    tmp_path: Path,
    listed: str,
    stored: tuple[int, ...],
    killed_at: float | None,
    complaint: str | None,
) -> None:
    """The judge accepts what may be in a database, and nothing else."""
    with closing(sqlite3.connect(tmp_path / "database")) as file, file:
        file.executescript(SCHEMA)
        file.executemany("INSERT INTO RecentRuns (run_id) VALUES (?)", listed)
        file.execute("INSERT INTO PlotLogs VALUES (1, 'a')")
        file.execute("INSERT INTO PlotLogEntries VALUES (1, 1, 'Count')")
        rows = [(11.0 + n / 2, n) for n in stored]
        file.executemany("INSERT INTO PlotLogEntryValues VALUES (1, ?, NULL, NULL, ?)", rows)
    (tmp_path / "notes").write_text("\n".join(map(json.dumps, NOTES)))
    judge = Judge(tmp_path / "database", tmp_path / "notes")
    said = judge.complaints(Doubts([killed_at] if killed_at else [], []))
    assert [what for what in said if complaint is None or complaint not in what] == []
    assert bool(said) is (complaint is not None)
