"""What the disk has spoilt: it is read whole or the damage is told, but there is no traceback."""

import io
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from tests.test_outbox import LINE, UNIT, event, sample
from tests.test_outbox_sqlite import crash, numbers
from trio_runner import DurableOutbox, NotAnOutbox, OutboxDamaged, OutboxError
from trio_runner._outbox_sqlite import export, summarize
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

# 12,000 were tried by hand.
MUTATIONS = int(os.environ.get("TRIO_RUNNER_MUTATIONS", "240"))


def filled(path: Path) -> DurableOutbox:
    """Return an outbox that contains some of everything."""
    outbox = DurableOutbox(path)
    outbox.claim("host_Unit")
    outbox.put(UNIT.create_run_started_msg("a", 1.0))
    outbox.delivered(outbox.take())
    outbox.put(em.RunLogMsg(id="", run_id="a", runlog=mdl.RunLog(lines=[LINE])))
    for number in range(12):
        outbox.put(sample(number))
        outbox.commit()
    outbox.take()
    outbox.set_aside(outbox.take(), "not understood")
    outbox.put(event("hello"))
    for number in range(12):
        outbox.put(sample(number))
    outbox.commit()
    return outbox


@pytest.fixture(params=["all in the log", "half in the log", "nothing in the log"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the files left by a process that dies before, during or after a checkpoint."""
    path = tmp_path / "first"
    outbox = filled(path)
    if request.param != "all in the log":
        outbox.close()
        outbox = DurableOutbox(path)
    if request.param == "half in the log":
        for number in range(12):
            outbox.put(sample(number))
            outbox.commit()
    image = crash(path, tmp_path / "image")
    outbox.close()
    return image


Contents = tuple[object, ...]


def contents(path: Path) -> tuple[Contents, int]:
    """Return what the next process finds, and its next number."""
    with DurableOutbox(path) as outbox:
        run = outbox.open_run
        found = (
            outbox.unit,
            outbox.run_id,
            (run.sequence_number, run.text) if run is not None else None,
            {kind: outbox.state(kind) for kind in (em.RunLogMsg, em.MethodStateMsg)},
            [(e.sequence_number, e.kind, e.text) for e in outbox._line],
        )
        number = outbox.next_number()
        outbox.put(event("new"))
    aside = [a.sequence_number for a in summarize(path).set_aside]
    return (*found, aside), number


def spoil(file: Path, rng: Random) -> None:
    """Flip a bit, or overwrite a byte, a few bytes, or a sector."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    size = rng.choice((0, 0, 1, 8, 512))
    if size:
        data[at : at + size] = rng.choice((bytes(size), rng.randbytes(size)))[: len(data) - at]
    else:
        data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def test_a_spoilt_file_is_read_whole_or_the_damage_is_told(
    image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is spoilt in the file or its log, looking at it fails in no other way."""
    rng = Random(13)
    whole, number = contents(crash(image, image.with_name("whole")))
    silent, outcomes = [], Counter[str]()
    for place in range(MUTATIONS // 3):
        folder = image.with_name("spoilt")
        folder.mkdir()
        spoilt = crash(image, folder / "unit")
        log = Path(f"{spoilt}-wal")
        has_log = log.exists() and log.stat().st_size
        file = log if has_log and rng.random() < 0.7 else spoilt
        spoil(file, rng)
        look_at(crash(spoilt, folder / "looked-at"))
        caplog.clear()
        try:
            found, next_number = contents(spoilt)
        except OutboxError:
            outcomes["refused"] += 1
        else:
            is_told = any(record.levelno >= logging.ERROR for record in caplog.records)
            is_whole = found == whole and next_number >= number
            outcomes["told" if is_told else "whole" if is_whole else "silent"] += 1
            if not is_told and not is_whole:
                pairs = zip((*whole, number), (*found, next_number), strict=True)
                silent.append((place, file.name, [pair for pair in pairs if pair[0] != pair[1]]))
        shutil.rmtree(folder)
    logging.getLogger(__name__).info("%s", dict(outcomes))
    assert not silent, f"{len(silent)} without a word, the first: {silent[0]}"


def look_at(path: Path) -> None:
    """Do what a person does; it works or says why not."""
    for look in (summarize, lambda path: export(path, io.StringIO())):
        try:
            look(path)
        except OutboxError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_a_spoilt_log_is_told_and_a_copy_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite drops all after the damage without a word; no number is used twice either."""
    outbox = filled(tmp_path / "first")
    path = crash(outbox.path, tmp_path / "unit")
    used = outbox.next_number()
    outbox.close()
    log = Path(f"{path}-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    before = path.read_bytes(), log.read_bytes()
    caplog.clear()
    with DurableOutbox(path) as outbox:
        assert len(outbox) < 23
        assert outbox.next_number() > used
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    copy = Path(f"{path}.damaged-1")
    assert "in its write-ahead log, frame" in error
    assert error.endswith(f"the files as they were are kept as {copy}")
    assert (copy.read_bytes(), Path(f"{copy}-wal").read_bytes()) == before
    assert copy.stat().st_mode & 0o077 == 0
    caplog.clear()
    DurableOutbox(path).close()
    assert not caplog.records


def crashed_and_spoilt(tmp_path: Path) -> Path:
    """Return the outbox of a process that has crashed, with the beginning of its log spoilt."""
    outbox = filled(tmp_path / "first")
    path = crash(outbox.path, tmp_path / "unit")
    outbox.close()
    log = Path(f"{path}-wal")
    log.write_bytes(b"\0" * 40 + log.read_bytes()[40:])
    return path


def test_no_more_than_three_copies_are_kept(tmp_path: Path) -> None:
    """A disk that spoils something again and again does not fill itself with copies."""
    for _ in range(5):
        path = crashed_and_spoilt(tmp_path)
        DurableOutbox(path).close()
        (tmp_path / "first").unlink()
    assert len(list(tmp_path.glob("unit.damaged-?"))) == 3


def test_copying_does_not_give_up_the_lock(tmp_path: Path) -> None:
    """Another process stays out while this one has the file, even after it was copied."""
    path = crashed_and_spoilt(tmp_path)
    with DurableOutbox(path):
        assert Path(f"{path}.damaged-1").exists()
        code = f"from trio_runner._outbox_sqlite import discard; discard({str(path)!r})"
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OutboxInUse" in process.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads which files are open from /proc")
def test_closing_lets_go_of_the_files_that_were_copied(tmp_path: Path) -> None:
    """They are held open with the lock, and no longer."""
    path = crashed_and_spoilt(tmp_path)

    def held() -> list[str]:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(200) if is_open(fd)]
        return [link for link in links if link.startswith(str(path))]

    def is_open(fd: int) -> bool:
        return os.path.lexists(f"/proc/self/fd/{fd}")

    with DurableOutbox(path):
        assert str(path) in held()
    assert held() == []


@pytest.mark.parametrize("what", ["empty", "gone"])
def test_a_log_whose_file_is_empty_or_gone_is_not_deleted(tmp_path: Path, what: str) -> None:
    """SQLite would delete it, and everything in it would be lost."""
    outbox = filled(tmp_path / "first")
    path = crash(outbox.path, tmp_path / "unit")
    outbox.close()
    path.write_bytes(b"")
    if what == "gone":
        path.unlink()
    before = Path(f"{path}-wal").read_bytes()
    with pytest.raises(OutboxDamaged, match=f"it is {what}, but there is a write-ahead log"):
        DurableOutbox(path)
    assert Path(f"{path}-wal").read_bytes() == before


def test_a_file_deleted_without_its_log_is_made_anew_by_its_engine(
    tmp_path: Path,
) -> None:
    """Its log contains nothing that is not in memory."""
    now = 0.0
    path = tmp_path / "unit"
    with DurableOutbox(path, clock=lambda: now) as outbox:
        outbox.put(event("one"))
        path.unlink()
        outbox.put(event("two"))
        assert outbox.statistics().degraded is not None
        now = 31.0
        outbox.commit()
        assert outbox.statistics().degraded is None
    assert numbers(path) == [1, 2]


LEAVE_A_LOG = """
import os, sqlite3, sys
path, mode, application = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None)
db.execute(f"PRAGMA application_id = {application}")
db.execute(f"PRAGMA journal_mode = {mode}")
db.execute("PRAGMA cache_size = 5")
db.execute("CREATE TABLE theirs (text)")
db.execute("BEGIN")
db.executemany("INSERT INTO theirs VALUES (?)", [("a" * 3000,)] * 300)
if mode == "WAL":
    db.execute("COMMIT")
os._exit(0)
"""


@pytest.mark.parametrize("application", ["0", "7"])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_another_programs_database_is_not_touched_after_its_crash(
    tmp_path: Path, mode: str, application: str
) -> None:
    """SQLite would write its log into the file, or roll its journal back, when it looks."""
    path = tmp_path / "theirs.db"
    command = [sys.executable, "-c", LEAVE_A_LOG, str(path), mode, application]
    subprocess.run(command, check=True)
    before = states_of(tmp_path)
    assert len(before) > 1
    with pytest.raises(NotAnOutbox, match="it is the database of another program"):
        DurableOutbox(path)
    assert states_of(tmp_path) == before


def states_of(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return the content, the permissions and the time of writing of the files of a folder."""
    files = {file: file.stat() for file in folder.iterdir()}
    return {f.name: (f.read_bytes(), s.st_mode, s.st_mtime_ns) for f, s in files.items()}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET kind = NULL WHERE sequence_number = 4",
        "UPDATE messages SET kind = x'ff' WHERE sequence_number = 4",
        "UPDATE messages SET body = NULL WHERE sequence_number = 4",
        "UPDATE messages SET body = 7 WHERE sequence_number = 4",
        "UPDATE messages SET crc = NULL WHERE sequence_number = 4",
        "UPDATE messages SET tried = NULL WHERE sequence_number = 4",
        "UPDATE messages SET taken_at = NULL WHERE sequence_number = 4",
        "UPDATE facts SET value = NULL",
        "UPDATE facts SET value = x'00'",
        "UPDATE sqlite_master SET sql = replace(sql, 'body', 'bod') WHERE name = 'messages'",
        "UPDATE sqlite_master SET sql = 'nonsense' WHERE name = 'messages'",
        "UPDATE sqlite_master SET sql = NULL WHERE name = 'facts'",
        "UPDATE sqlite_master SET rootpage = 1000 WHERE name = 'facts'",
        "DELETE FROM sqlite_master WHERE name = 'set_aside'",
        "DELETE FROM sqlite_master",
    ],
)
def test_null_values_and_a_damaged_schema_are_told(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an engine nor a person gets a traceback."""
    path = tmp_path / "unit"
    filled(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
        db.execute("PRAGMA schema_version = 100")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(damage)
    look_at(crash(path, tmp_path / "looked-at"))
    caplog.clear()
    try:
        outbox = DurableOutbox(path)
    except OutboxError as error:
        assert "Move the file away" in str(error)  # noqa: PT017
    else:
        outbox.put(event("new"))
        outbox.close()
        assert any(record.levelno >= logging.ERROR for record in caplog.records)
