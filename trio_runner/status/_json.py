"""The status for programs, such as `trio-runner status`."""

import json
import time
from typing import Any

from attrs import asdict

from trio_runner.status._board import SAMPLE_S, Sight
from trio_runner.status._verdict import worst


def as_json(sights: list[Sight], alarm_after_s: float) -> str:
    """Return the status of the units as JSON text.

    Instants are in seconds since the epoch, durations in seconds.
    """
    told = {
        "level": worst(sight.level for sight in sights),
        "at": round(time.time(), 3),
        "alarm_after_s": alarm_after_s,
        "units": [_unit(sight) for sight in sights],
    }
    return json.dumps(told, allow_nan=False) + "\n"


def _unit(sight: Sight) -> dict[str, Any]:
    known = sight.statistics
    progress = sight.progress
    return {
        "unit": sight.name,
        "level": sight.level,
        "reasons": [{"level": reason.level, "text": reason.text} for reason in sight.reasons],
        "failed": sight.failed,
        "statistics": asdict(known) if known is not None else None,
        "catching_up": progress and {"done": progress.done, "left": progress.left},
        "history": {
            "every_s": SAMPLE_S,
            "waiting": [point.waiting for point in sight.history],
            "answer_s": [point.answer_s for point in sight.history],
        },
    }
