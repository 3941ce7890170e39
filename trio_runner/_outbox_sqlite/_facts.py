"""What an outbox's file knows besides the line: its unit, its numbers, the run that is on."""

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field, frozen

from trio_runner._outbox import RUN_EVENTS, Entry
from trio_runner._outbox_sqlite._file import Fact
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import loads, pack, unpack

logger = logging.getLogger(__name__)

NUMBERS_AHEAD = 1000
"""How many sequence numbers are reserved on disk, so that none is used twice after a crash."""

NUMBERS_LOST = 1000 * NUMBERS_AHEAD
"""How many numbers are skipped after damage: more than the file's log can have reserved."""

STATES_BYTES_S = 4000
"""How fast the run log and method state may be written, on average (B/s): 0.35 GB a day.

They change several times a second, and a run log of 1,000 lines has 100 kB and more. A crash costs
what has changed since they were last written: the run's end then has an older run log than the
aggregator has seen. That could be avoided by telling the aggregator only what is on disk. But it
would then always show an old run log, only so that a crash, which is rare, costs nothing.
"""

STATES_WRITE_BYTES = 16 * 1024
"""What writing the states costs besides their bytes: pages that are rewritten with them (bytes)."""

STATES_AHEAD_S = 120
"""How much of that rate may be used in advance (s), so that the first steps of a run are written as
they happen."""

KEPT_STATES = {"run_log": em.RunLogMsg, "method_state": em.MethodStateMsg}
"""The states that the end of a run needs, by their names in the file."""

UNIT_STATES = {"uod_info": em.UodInfoMsg, "method": em.MethodMsg}
"""The states that say what the unit is, by their names in the file. Where the unit is not known,
the messages are of no use without them."""

PACKED = {*KEPT_STATES, *UNIT_STATES, "registration"}
"""The facts that are long texts, which the file has packed."""


@define(eq=False)
class KnownFacts:
    """The facts as the file has them, and what it is to have next."""

    is_last: bool = field(default=False, init=False)
    """Whether the outbox is being closed: nothing is put off, and no further number is reserved."""
    reserved: int = field(default=0, init=False)
    """The last sequence number that may be used before more are reserved."""
    _on_disk: Mapping[str, Fact] = field(factory=dict, init=False)
    _states_due_at: float = field(default=0.0, init=False)

    def latest(
        self,
        unit: str | None,
        number: int,
        open_run: Entry | None,
        states: Mapping[str, Fact],
        now: float,
    ) -> dict[str, Fact]:
        """Return the facts that the file is to have next.

        `states` are those of `KEPT_STATES`; they are included as the file has them until they are
        due.
        """
        if self.is_last:
            self.reserved = number
        elif number + NUMBERS_AHEAD // 2 > self.reserved:
            self.reserved = number + NUMBERS_AHEAD
        return {
            "unit": unit,
            "numbers": self.reserved,
            "open_run_number": open_run.sequence_number if open_run else None,
            "open_run_body": open_run.body if open_run else None,
            "open_run_taken_at": open_run.taken_at if open_run else None,
            **self._due(states, now),
        }

    def _due(self, states: Mapping[str, Fact], now: float) -> Mapping[str, Fact]:
        """Return the states as they are if they are due, otherwise as the disk has them.

        All are due if the disk lacks one or has one too many, as when a run begins or ends, and
        when the outbox is closed.
        """
        on_disk = {name: self._on_disk.get(name) for name in states}
        is_news = any((states[name] is None) != (on_disk[name] is None) for name in states)
        is_due = is_news or self.is_last or now >= self._states_due_at
        return states if is_due else on_disk

    def changed(self, facts: Mapping[str, Fact]) -> dict[str, Fact]:
        """Return the facts that the file does not have yet, as it is to have them."""
        known = self._on_disk
        return stored({n: f for n, f in facts.items() if n not in known or known[n] != f})

    def written(self, facts: Mapping[str, Fact], changed: Mapping[str, Fact], now: float) -> None:
        """Note what the file has now, and when the states are due again."""
        self._on_disk = facts
        states = [f for name, f in changed.items() if name in KEPT_STATES and isinstance(f, bytes)]
        if states:
            size = STATES_WRITE_BYTES + sum(map(len, states))
            unused = max(self._states_due_at, now - STATES_AHEAD_S)
            self._states_due_at = unused + size / STATES_BYTES_S


def check(facts: Mapping[str, Fact]) -> None:
    """Raise ValueError if a file's facts have wrong types, or lack the numbers."""
    run = [facts.get(f"open_run_{what}") for what in ("number", "body", "taken_at")]
    types = tuple(map(type, run))
    is_whole = (
        (not facts or isinstance(facts.get("numbers"), int))
        and isinstance(facts.get("unit"), str | None)
        and isinstance(facts.get("last_run_event"), int | None)
        and types in ((int, bytes, float), (type(None),) * 3)
        and all(isinstance(facts.get(name), bytes | None) for name in PACKED)
    )
    if not is_whole:
        raise ValueError("its facts are damaged")


@frozen
class Found:
    """What a file's facts say, as an outbox needs it."""

    unit: str | None
    numbers: int
    """The last sequence number that may have been used."""
    last_run_event: int
    open_run: Entry | None
    states: dict[type[em.EngineMessage], str]
    registration: str | None


def found(facts: Mapping[str, Fact], path: Path) -> Found:
    """Return what the facts of the file at `path` say.

    Raises zlib.error, DecodeError, TypeError or ValueError if they are not whole.
    """
    check(facts)
    unit, numbers, last = (facts.get(name) for name in ("unit", "numbers", "last_run_event"))
    states = {
        kind: unpack(f) for n, kind in KEPT_STATES.items() if isinstance(f := facts.get(n), bytes)
    }
    for name, kind in UNIT_STATES.items():
        description = _description(facts, name, path)
        if description is not None:
            states[kind] = description
    return Found(
        unit=unit if isinstance(unit, str) else None,
        numbers=numbers if isinstance(numbers, int) else 0,
        last_run_event=last if isinstance(last, int) else 0,
        open_run=_open_run(facts),
        states=states,
        registration=_description(facts, "registration", path),
    )


def _open_run(facts: Mapping[str, Fact]) -> Entry | None:
    number, body, taken_at = (
        facts.get(f"open_run_{what}") for what in ("number", "body", "taken_at")
    )
    if not (isinstance(number, int) and isinstance(body, bytes) and isinstance(taken_at, float)):
        return None
    open_run = Entry(number, em.RunStartedMsg, body, taken_at, tries=1)
    run_of(open_run)  # raises if it is not whole: it is sent as it lies here
    return open_run


def _description(facts: Mapping[str, Fact], name: str, path: Path) -> str | None:
    """Return a packed description, or None if there is none or the disk has spoilt it.

    The engine describes itself again, so a spoilt one is no loss.
    """
    text = facts.get(name)
    try:
        return unpack(text) if isinstance(text, bytes) else None
    except (zlib.error, ValueError):
        logger.error("The disk has damaged the %s in the outbox %s", name, path)
        return None


def stored(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return facts as the file has them, with the long ones packed."""
    return {
        name: pack(fact) if name in PACKED and isinstance(fact, str) else fact
        for name, fact in facts.items()
    }


def uod_name(registration: str | None) -> str | None:
    """Return the name of the UOD in an encoded registration, or None if there is none."""
    name = loads(registration).get("uod_name") if registration else None
    return name if isinstance(name, str) else None


def is_renamed(old: str, new: str) -> bool:
    """Return whether two units may differ only in their computers' names.

    A unit's name consists of its computer's name and its UOD's.
    """
    return "_" in old and old.rpartition("_")[2] == new.rpartition("_")[2]


def run_of(entry: Entry) -> str | None:
    """Return the run that a message names, whatever version of the engine made it.

    Raises zlib.error or ValueError if the message is not whole.
    """
    message = loads(entry.text)
    if not isinstance(message, dict):
        raise ValueError(f"{entry} is not a message")
    run_id = message.get("run_id")
    return run_id if isinstance(run_id, str) else None


def run_behind(entries: list[Entry], open_run: Entry | None) -> str | None:
    """Return the run that is on after everything that waits, or None."""
    runs = (e for e in reversed(entries) if e.kind in RUN_EVENTS)
    last = next(runs, open_run)
    return run_of(last) if last is not None and last.kind is em.RunStartedMsg else None
