"""Whether a file is whole: each kind of damage is found, and looking changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.test_outbox_damage import filled
from tests.test_outbox_sqlite import crash
from trio_runner import NotAnOutbox, OutboxNotFound
from trio_runner._outbox_sqlite import examine
from trio_runner.protocol import pack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of an engine that has ended in order."""
    path = tmp_path / "unit.outbox"
    filled(path).close()
    return path


def test_a_whole_file_is_reported_as_whole(path: Path, tmp_path: Path) -> None:
    """After an orderly end and after a crash: 25 put in, 1 delivered, the rest is counted."""
    assert [examine(path).messages, examine(path).log_fault, examine(path).faults] == [25, None, []]
    outbox = filled(tmp_path / "other")
    image = crash(outbox.path, tmp_path / "image")
    outbox.close()
    checked = examine(image)
    assert (checked.messages, checked.log_fault, checked.faults) == (25, None, [])
    assert not checked.is_in_use


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE messages SET body = x'00' WHERE sequence_number = 4", "message 4 cannot be read"),
        ("UPDATE messages SET crc = 1 WHERE sequence_number = 4", "message 4 is not as it was"),
        ("UPDATE messages SET tried = 7 WHERE sequence_number = 4", "message 4 is not as it was"),
        ("UPDATE messages SET kind = 'X' WHERE sequence_number = 4", "of the unknown type 'X'"),
        (
            "UPDATE messages SET kind = 'ErrorLogMsg' WHERE sequence_number = 4",
            "message 4 cannot be read",
        ),
        (
            "UPDATE messages SET sequence_number = -4 WHERE sequence_number = 4",
            "a message has the impossible number -4",
        ),
        ("UPDATE set_aside SET body = x'00'", "cannot be read; it was set aside"),
        ("UPDATE facts SET value = x'00' WHERE name = 'run_log'", "its run_log cannot be read"),
        ("UPDATE facts SET value = NULL WHERE name = 'numbers'", "its facts are damaged"),
        ("UPDATE facts SET value = 9 WHERE name = 'numbers'", "its numbers end at 9"),
        ("DROP TABLE set_aside", "no such table: set_aside"),
    ],
)
def test_whatever_differs_from_what_was_written_is_told(path: Path, damage: str, told: str) -> None:
    """This covers messages, what was set aside, known facts, numbers and tables."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(damage)
    before = path.read_bytes()
    (fault,) = examine(path).faults
    assert told in fault
    assert path.read_bytes() == before


def test_pages_of_rubbish_are_told(path: Path) -> None:
    """SQLite itself finds this damage."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * 3000)
    assert examine(path).faults


def test_a_log_that_is_not_whole_is_told(tmp_path: Path) -> None:
    """SQLite itself reads up to the damage without a word."""
    outbox = filled(tmp_path / "other")
    image = crash(outbox.path, tmp_path / "image")
    outbox.close()
    log = Path(f"{image}-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    checked = examine(image)
    assert checked.log_fault is not None
    assert checked.messages < 25


def test_many_faults_are_told_up_to_a_bound(path: Path) -> None:
    """A file full of faults does not fill the terminal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        body = pack('{"_type":"Unknown"}')
        for number in range(1000, 1100):
            db.execute(
                "INSERT INTO messages VALUES (?, 'TagsUpdatedMsg', ?, 0, 0, 1.0)", (number, body)
            )
        db.execute("UPDATE facts SET value = 2000 WHERE name = 'numbers'")
    assert len(examine(path).faults) == 20


def test_a_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    """The file is a text, or does not exist."""
    text = tmp_path / "text"
    text.write_text("notes\n" * 1000)
    with pytest.raises(NotAnOutbox):
        examine(text)
    with pytest.raises(OutboxNotFound):
        examine(tmp_path / "nothing")
