"""How a message that waits becomes smaller without losing what matters most."""

from typing import Any

from trio_runner.protocol import encode_body, foreign, loads
from trio_runner.protocol import engine_messages as em

LOG_ENTRIES_MAX = 1000
"""How many entries of the error log one message holds; more are left out of its middle."""

LOG_CHARACTERS_MAX = 1024 * 1024
"""How long such a message may become; another one begins then."""

WARNING = 30
"""The severity of the line that says so; a level of Python's logging."""


def smaller_end(text: str) -> tuple[str, str] | None:
    """Return the end of a run with less in it, and what was left out; None if nothing can be.

    First its archive goes, then the values in its run log, then the run log's lines: that the run
    has ended is what the aggregator must hear.
    """
    obj: dict[str, Any] = loads(text)
    lines = (obj.get("runlog") or {}).get("lines")
    if obj.get("archive") is not None:
        obj.update(archive=None, archive_filename=None)
        left_out = "archive"
    elif lines and any(line.get("start_values") or line.get("end_values") for line in lines):
        obj["runlog"]["lines"] = [{**line, "start_values": [], "end_values": []} for line in lines]
        left_out = "values of the run log"
    elif lines:
        obj["runlog"]["lines"] = []
        left_out = "run log"
    else:
        return None
    return encode_body(foreign(obj, em.RunStoppedMsg)), left_out


def merged_logs(before: str, after: str, left_out: int) -> tuple[str, int]:
    """Return two messages of the error log as one, and how many entries it leaves out.

    `left_out` is how many `before` leaves out. The oldest entries are kept, since what comes later
    is often a consequence, and the latest.
    """
    half = LOG_ENTRIES_MAX // 2
    obj: dict[str, Any] = loads(before)
    entries = [*obj["log"]["entries"], *loads(after)["log"]["entries"]]
    first, later = entries[:half], entries[half:]
    if left_out:
        del later[0]  # the line that said how many
    if len(later) > half:
        left_out += len(later) - half
        later = later[-half:]
    if left_out:
        text = f"{left_out} entries of the error log are left out here"
        later = [
            {"message": text, "created_time": later[0]["created_time"], "severity": WARNING},
            *later,
        ]
    obj["log"]["entries"] = first + later
    return encode_body(foreign(obj, em.ErrorLogMsg)), left_out
