"""What an outbox's file knows besides the line: its unit, its numbers, the run that is on."""

from collections.abc import Mapping

from attrs import define, field

from trio_runner._outbox import RUN_EVENTS, Entry
from trio_runner._outbox_sqlite._file import Fact
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import loads, pack

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
        raise ValueError("its facts are not whole")


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
        raise ValueError(f"{entry} is no message")
    run_id = message.get("run_id")
    return run_id if isinstance(run_id, str) else None


def run_behind(entries: list[Entry], open_run: Entry | None) -> str | None:
    """Return the run that is on after everything that waits, or None."""
    runs = (e for e in reversed(entries) if e.kind in RUN_EVENTS)
    last = next(runs, open_run)
    return run_of(last) if last is not None and last.kind is em.RunStartedMsg else None
