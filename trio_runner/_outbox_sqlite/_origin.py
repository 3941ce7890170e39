"""What an outbox's file says about the engine that filled it."""

import sqlite3
import zlib
from pathlib import Path
from typing import Any

from attrs import frozen

from trio_runner._outbox_sqlite._errors import OutboxError
from trio_runner._outbox_sqlite._file import Fact
from trio_runner._outbox_sqlite._snapshot import snapshot_of
from trio_runner.protocol import DecodeError, loads, unpack

Json = dict[str, Any]


@frozen
class Origin:
    """An engine as its outbox knows it, with each message as the JSON object that it encodes to."""

    computer_name: str
    uod_name: str
    registration: Json
    """How it registered, without the secret; empty in a file of an older version."""
    uod_info: Json | None
    """The unit's description, or None in a file of an older version or if none was told yet."""
    method: Json | None
    tags: dict[str, str | None]
    """Names and units of measure of the tags in the waiting samples, if there is no description."""


def origin_of(path: Path | str) -> Origin:
    """Return what a file says about its engine.

    Older versions wrote one name, `computer_uod`. It is split at the first `_`, which names of
    hosts do not contain. For the aggregator it is one name in any case.

    Raises an `OutboxError`, also if nobody has claimed the outbox.
    """
    with snapshot_of(Path(path)) as snapshot:
        facts: dict[str, Fact] = dict(snapshot.db.execute("SELECT name, value FROM facts"))
        unit = facts.get("unit")
        if not isinstance(unit, str):
            raise OutboxError(f"The outbox {path} does not say whose messages it holds.")
        registration = _loads(facts.get("registration")) or {}
        computer, name = (str(registration.get(n, "")) for n in ("computer_name", "uod_name"))
        if f"{computer}_{name}" != unit:
            registration = {}
            computer, _, name = unit.partition("_")
        uod_info = _loads(facts.get("uod_info"))
        return Origin(
            computer_name=computer,
            uod_name=name,
            registration=registration,
            uod_info=uod_info,
            method=_loads(facts.get("method")),
            tags={} if uod_info else _tags(snapshot.db),
        )


def _loads(packed: Fact) -> Json | None:
    """Return the object that was packed, or None if there is none or the disk has spoilt it."""
    try:
        message = loads(unpack(packed)) if isinstance(packed, bytes) else None
    except (zlib.error, DecodeError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _tags(db: sqlite3.Connection) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for (body,) in db.execute("SELECT body FROM messages WHERE kind = 'TagsUpdatedMsg'"):
        message = _loads(body) or {}
        tags = (tag for tag in message.get("tags") or () if isinstance(tag, dict))
        found.update((str(tag.get("name")), tag.get("value_unit")) for tag in tags)
    return found
