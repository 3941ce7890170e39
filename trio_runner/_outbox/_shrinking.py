"""Making a waiting message smaller without losing what matters most."""

import re
from collections.abc import Iterable
from itertools import accumulate, islice, takewhile
from typing import Any

from trio_runner.protocol import dumps, encode_body, foreign, loads
from trio_runner.protocol import engine_messages as em

LOG_ENTRIES_MAX = 1000
"""How many entries of the error log one message holds; further ones are left out of its middle."""

LOG_CHARACTERS_MAX = 1024 * 1024
"""How long such a message is at most (characters). One entry's text has at most a quarter of
that."""

LEFT_OUT = "{} entries of the error log are left out here"
"""The text in the middle of an error log from which entries were left out."""

WARNING = 30
"""The severity of the entry with that text; a level of Python's logging."""


def smaller_end(text: str) -> tuple[str, str] | None:
    """Return the end of a run with less in it, and what was left out; None if nothing can be.

    First its archive goes, then the values in its run log, then the run log's lines: what the
    aggregator must hear is that the run has ended. A message that was already sent is made smaller
    in Trio's thread: 0.1 s for an archive of 12 MB, a second for a run log of 16 MiB, each once.
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


def is_long_log(text: str) -> bool:
    """Return whether an error log holds more than it may."""
    is_long = len(text) > LOG_CHARACTERS_MAX
    return is_long or len(loads(text)["log"]["entries"]) > LOG_ENTRIES_MAX


def merged_logs(texts: Iterable[str]) -> str:
    """Return several error logs as one, which holds no more than it may.

    The oldest entries are kept, since later ones are often a consequence, and so are the latest. An
    entry in the middle says how many are left out.
    """
    objects: list[dict[str, Any]] = [loads(text) for text in texts]
    entries = [_cut(entry) for obj in objects for entry in obj["log"]["entries"]]
    obj = objects[0]
    obj["log"]["entries"] = _within_bounds(entries)
    return encode_body(foreign(obj, em.ErrorLogMsg))


def _cut(entry: dict[str, Any]) -> dict[str, Any]:
    text = str(entry["message"])
    if len(text) <= LOG_CHARACTERS_MAX // 4:
        return entry
    return {**entry, "message": f"{text[: LOG_CHARACTERS_MAX // 4]}..."}


def _within_bounds(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sizes = [len(dumps(entry)) + 1 for entry in entries]
    if len(entries) <= LOG_ENTRIES_MAX and sum(sizes) <= LOG_CHARACTERS_MAX:
        return entries
    counts = [_left_out_by(entry) for entry in entries]
    line = next((place for place, count in enumerate(counts) if count), len(entries))
    first = min(_fitting(sizes), line)
    last = max(len(entries) - _fitting(reversed(sizes)), first)
    left_out = sum(count or 1 for count in counts[first:last])
    text = {"message": LEFT_OUT.format(left_out), "severity": WARNING}
    return [*entries[:first], {**entries[first], **text}, *entries[last:]]


def _fitting(sizes: Iterable[int]) -> int:
    """Return how many entries, from the first on, fit into half a message."""
    totals = islice(accumulate(sizes), LOG_ENTRIES_MAX // 2)
    return sum(1 for _ in takewhile(lambda total: total <= LOG_CHARACTERS_MAX // 2, totals))


def _left_out_by(entry: dict[str, Any]) -> int:
    """Return how many left-out entries an entry stands for, 0 if it is an ordinary one."""
    match = re.fullmatch(LEFT_OUT.format(r"(\d+)"), entry["message"])
    return int(match[1]) if match else 0
