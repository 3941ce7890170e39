"""`trio-runner status`: whether the units of a command are well, or what an outbox holds."""

import json
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from trio_runner import OutboxDamaged, OutboxError
from trio_runner._away import duration
from trio_runner._cli._status_arguments import address_of
from trio_runner._cli._summary import count
from trio_runner._outbox_sqlite import OutboxSummary, summarize
from trio_runner._printable import printable

EXIT_CODES = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
"""The exit codes that Nagios and similar monitors expect from their plugins."""

ANSWER_S = 10
"""The time for each step of getting an answer (s)."""

ANSWER_BYTES_MAX = 16 * 2**20

REASON_MAX = 400

FRESH_S = 10
"""A message that has waited in an outbox for less may just be under way (s)."""

OLD_S = 300
"""A message that has waited for longer needs a person's attention (s)."""

NO_STATUS = "what answers there is not a status of trio-runner"


class Unknown(Exception):
    """Nothing can be told; the message says why."""


@frozen
class Told:
    """The findings: the level, the lines for people, and the object for programs."""

    level: str
    lines: list[str]
    for_programs: dict[str, Any]


def run(arguments: Namespace) -> int:
    """Carry out the command; return the exit code."""
    try:
        told = _look(arguments.where)
    except Unknown as error:
        text = str(error)
        told = Told("unknown", [f"UNKNOWN: {text}"], {"level": "unknown", "error": text})
    if arguments.json:
        print(json.dumps(told.for_programs, indent=2))
    else:
        print(*told.lines, sep="\n")
    sys.stdout.flush()
    return EXIT_CODES[told.level]


def _look(where: str) -> Told:
    if "://" in where:
        return _of_units(_ask(where))
    if not Path(where).exists():
        try:
            host, port = address_of(where)
        except ArgumentTypeError:
            raise Unknown(f"there is no outbox {where}") from None
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return _of_units(_ask(f"http://{at}/"))
    try:
        return _of_outbox(summarize(where))
    except OutboxDamaged as error:
        return Told("critical", [f"CRITICAL: {error}"], {"level": "critical", "error": str(error)})
    except OutboxError as error:
        raise Unknown(str(error)) from error


# A running command


def _ask(url: str) -> dict[str, Any]:
    try:
        answer = json.loads(_get(url))
    except OSError as error:
        why = error.strerror or str(error)
        raise Unknown(
            f"nothing answers at {url}: {why}. Is the engine running, with --status?"
        ) from error
    except (HTTPException, ValueError) as error:
        raise Unknown(f"{url}: {NO_STATUS}: {printable(repr(error))}") from error
    if not isinstance(answer, dict):
        raise Unknown(f"{url}: {NO_STATUS}")
    return answer


def _get(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unknown(f"{url} is not an http or https URL")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=ANSWER_S)
    try:
        path = parts.path.rsplit("/", 1)[0] + "/status.json"
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != 200:
            raise Unknown(f"{url}: {NO_STATUS}: it answers with HTTP status {response.status}")
        return response.read(ANSWER_BYTES_MAX)
    finally:
        connection.close()


def _of_units(status: dict[str, Any]) -> Told:
    try:
        level = str(status["level"])
        lines = [_first_line(status), *(line for u in status["units"] for line in _unit_lines(u))]
        EXIT_CODES[level]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unknown(NO_STATUS) from error
    return Told(level, lines, status)


def _first_line(status: dict[str, Any]) -> str:
    """Return the line that monitoring shows: the worst finding."""
    level, units = status["level"], status["units"]
    bad = [unit for unit in units if unit["level"] == level and unit["reasons"]]
    if level == "ok" or not bad:
        return f"{level.upper()}: {count(len(units), 'unit')}"
    more = f" (and {count(len(bad) - 1, 'other unit')})" if len(bad) > 1 else ""
    text = f"{bad[0]['unit']}: {bad[0]['reasons'][0]['text']}{more}"
    return printable(f"{level.upper()}: {text}", REASON_MAX)


def _unit_lines(unit: dict[str, Any]) -> Iterator[str]:
    yield printable(f"  {unit['level']:8}  {unit['unit']}: {_doing(unit)}", REASON_MAX)
    for reason in unit["reasons"]:
        yield printable(f"            {reason['text']}", REASON_MAX)


def _doing(unit: dict[str, Any]) -> str:
    known = unit["statistics"]
    if unit["failed"] is not None or known is None:
        return "failed" if unit["failed"] is not None else "starting"
    outbox = known["outbox"]
    text = f"{known['state']} for {duration(known['state_for_s'])}, {outbox['delivered']} delivered"
    if not outbox["waiting"]:
        return f"{text}, nothing waits"
    text += f", {outbox['waiting']} waiting"
    oldest_s = outbox["oldest_s"]
    return text if oldest_s is None else f"{text}, the oldest for {duration(oldest_s)}"


# An outbox


def _of_outbox(summary: OutboxSummary) -> Told:
    from trio_runner._cli._outbox import lines

    age_s = max(0.0, time.time() - summary.oldest) if summary.oldest is not None else 0.0
    level, text = "ok", "nothing waits"
    if summary.waiting:
        text = f"{count(summary.waiting, 'message')} waiting, the oldest for {duration(age_s)}"
        level = "warning" if age_s > FRESH_S else "ok"
        level = "critical" if age_s > OLD_S else level
    aside = len(summary.set_aside) + summary.set_aside_dropped
    if aside:
        level, text = "critical", f"{count(aside, 'message')} set aside, {text}"
    told = {
        "level": level,
        "outbox": str(summary.path),
        "unit": summary.unit,
        "waiting": summary.waiting,
        "oldest_s": age_s if summary.waiting else None,
        "set_aside": aside,
        "open_run": summary.open_run,
    }
    return Told(level, [f"{level.upper()}: {text}", *lines(summary)], told)
