"""What an aggregator has made of an engine's messages, in the same words for both kinds.

`plots` has the stored samples of each tag of each run, and `runs` what is kept of the runs that
have ended. The rest is what the page shows.
"""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from trio_runner.protocol import encode
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.stand_ins._aggregator import AggregatorRules
from trio_runner.simulation.stand_ins._records import RecentRun, Unit

from ._aggregator import Api

Json = dict[str, Any]

PLOTS = """
SELECT logs.run_id, entries.name, samples.tick_time, coalesce(value_int, value_float, value_str)
FROM PlotLogEntryValues AS samples
JOIN PlotLogEntries AS entries ON entries.id = samples.plot_log_entry_id
JOIN PlotLogs AS logs ON logs.id = entries.plot_log_id
WHERE logs.engine_id = ?
ORDER BY samples.id
"""

RUNS = """
SELECT runs.run_id, started_date, run_log, method, state, error_log, archive, archive_filename
FROM RecentRuns AS runs
JOIN RecentRunRunLogs AS run_logs ON run_logs.id = runs.id
JOIN RecentRunMethodAndStates AS methods ON methods.id = runs.id
JOIN RecentRunErrorLogs AS error_logs ON error_logs.id = runs.id
WHERE runs.engine_id = ?
ORDER BY runs.id
"""


async def seen_at(database: Path, api: Api, engine_id: str) -> Json:
    """Return what is seen at the real aggregator."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as file:
        plots = file.execute(PLOTS, (engine_id,)).fetchall()
        runs = file.execute(RUNS, (engine_id,)).fetchall()
    return {
        "plots": _plots(plots),
        "runs": [_run(*run) for run in runs],
        **await _now(api),
    }


def seen_in(rules: AggregatorRules, engine_id: str) -> Json:
    """Return what is seen in the stand-in."""
    plots = [
        (run_id, name, sample.tick_time, sample.value)
        for run_id, tags in rules.plot_log.items()
        for name, samples in tags.items()
        for sample in samples
    ]
    return {
        "plots": _plots(plots),
        "runs": [_listed(run) for run in rules.recent_runs],
        **_shown(rules.engines[engine_id].unit),
    }


def _plots(samples: list[tuple[str, str, float, Any]]) -> Json:
    plots: dict[str, dict[str, list[tuple[float, Any]]]] = {}
    for run_id, name, tick_time, value in samples:
        plots.setdefault(run_id, {}).setdefault(name, []).append((tick_time, value))
    return plots


def _run(
    run_id: str,
    started: str,
    run_log: str,
    method: str,
    state: str,
    errors: str,
    archive: str | None,
    filename: str | None,
) -> Json:
    return {
        "run_id": run_id,
        "started": datetime.fromisoformat(started).replace(tzinfo=UTC).timestamp(),
        "run_log": json.loads(run_log)["lines"],
        "method": json.loads(method)["lines"],
        "method_state": json.loads(state),
        "errors": json.loads(errors)["entries"],
        "archive": (archive, filename),
    }


def _listed(run: RecentRun) -> Json:
    return {
        "run_id": run.run_id,
        "started": datetime.fromtimestamp(run.started_tick, UTC).timestamp(),  # to the microsecond
        "run_log": _lines(run.run_log),
        "method": _method(run.method),
        "method_state": _method_state(run.method_state),
        "errors": [attrs.asdict(entry) for entry in run.error_log],
        "archive": (run.archive, run.archive_filename),
    }


async def _now(api: Api) -> Json:
    values = await api.of_unit("all_process_values")
    return {
        "tags": {v["name"]: (v.get("value"), v.get("value_unit")) for v in values},
        "method": (await api.of_unit("method"))["lines"],
        "method_state": _on_page((await api.of_unit("method-and-state"))["state"]),
        "control_state": await api.of_unit("control_state"),
        "run_log": [line["id"] for line in (await api.of_unit("run_log"))["lines"]],
        "errors": [
            (e["message"], e["occurrences"]) for e in (await api.of_unit("error_log"))["entries"]
        ],
    }


def _shown(unit: Unit) -> Json:
    control = encode(em.ControlStateMsg(control_state=unit.control_state))["control_state"]
    run_log = unit.queued_run_log if unit.run is None else unit.run.run_log
    return {
        "tags": {tag.name: (tag.value, tag.value_unit) for tag in unit.tags.values()},
        "method": _method(unit.method),
        "method_state": _on_page(_method_state(unit.method_state)),
        "control_state": control,
        "run_log": [line.id for line in run_log.lines],
        "errors": [(entry.message, entry.occurrences) for entry in unit.error_log],
    }


def _lines(log: mdl.RunLog) -> Any:
    return encode(em.RunLogMsg(id="", run_id="", runlog=log))["runlog"]["lines"]


def _method(method: mdl.Method) -> Any:
    return encode(em.MethodMsg(method=method))["method"]["lines"]


def _method_state(state: mdl.MethodState) -> Any:
    return encode(em.MethodStateMsg(method_state=state))["method_state"]


def _on_page(method_state: Json) -> Json:
    names = "started_line_ids", "executed_line_ids", "injected_line_ids"
    return {name: method_state[name] for name in names}
