"""Looking at an outbox while its engine runs: what is seen, and that nobody is held up."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.test_outbox import event, sample, waiting
from tests.test_outbox_sqlite import crash, no_root
from trio_runner import DurableOutbox, OutboxDamaged, OutboxError, OutboxInUse
from trio_runner._outbox_sqlite import examine, export, is_locked, summarize
from trio_runner._outbox_sqlite._snapshot import snapshot_of

SPAWN = multiprocessing.get_context("spawn")

KEPT = 20
LOG_PAGES = 40
"""After this many pages the log begins anew, so it does so again and again while somebody reads."""


def _work(path: Path, told: Connection) -> None:
    """Put events in and deliver old ones, with a commit each, and shrink the file now and then."""
    with DurableOutbox(path) as outbox:
        outbox.claim("host_Unit")
        outbox._disk.file.db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        number = 0
        while True:
            number += 1
            outbox.put(event("x" * (number % 50 * 100)))
            if len(outbox) > KEPT:
                outbox.delivered(outbox.take())
            if number == KEPT:
                told.send("full")
            if number % 100 == 0:
                outbox._disk.file.db.execute("VACUUM")
                outbox._disk.file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def working(path: Path) -> Generator[None, None, None]:
    """Run an engine that writes all the time, in its own process."""
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_work, args=(path, theirs))
    process.start()
    try:
        assert ours.recv() == "full"
        yield
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        ours.close()
        theirs.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unit.outbox"


def test_a_look_at_a_file_that_is_being_written_shows_one_moment(path: Path) -> None:
    """Each commit removes the oldest message and adds one: 20 or 21 in a row, and no torn page."""
    logs, last = set[bytes](), 0
    with working(path):
        for _ in range(60):
            with snapshot_of(path) as snapshot:
                logs.add(Path(f"{path}-wal").read_bytes()[:32])
                assert snapshot.is_in_use
                assert snapshot.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                found = [n for (n,) in snapshot.db.execute("SELECT sequence_number FROM messages")]
            assert found == list(range(found[0], found[0] + len(found)))
            assert KEPT <= len(found) <= KEPT + 1
            assert found[-1] >= last
            last = found[-1]
    assert len(logs) > 5  # the log has begun anew in between


def _turn_over(path: Path, told: Connection) -> None:
    """Replace everything that waits and begin the log anew, each time when told to."""
    with DurableOutbox(path) as outbox:
        while True:
            for number in range(KEPT):
                outbox.put(event(str(number)))
            while len(outbox) > KEPT:
                outbox.delivered(outbox.take())
            outbox.commit()
            outbox._disk.file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            outbox.put(event("one more"))
            told.send("turned over")
            told.recv()


def test_a_log_that_begins_anew_between_file_and_log_is_noticed(path: Path) -> None:
    """The old file with the new log would be a database that never existed, so it is read again."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_turn_over, args=(path, theirs))
    process.start()
    turns = iter(range(3))

    class Slow(type(path)):  # type: ignore[misc]
        """A file on a disk that is so slow that the engine does much after the first reads."""

        def read_bytes(self) -> bytes:
            data: bytes = super().read_bytes()
            if next(turns, None) is not None:
                ours.send("go")
                assert ours.recv() == "turned over"
            return data

    try:
        assert ours.recv() == "turned over"
        with snapshot_of(Slow(path)) as snapshot:
            assert snapshot.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = [n for (n,) in snapshot.db.execute("SELECT sequence_number FROM messages")]
    finally:
        process.kill()
        process.join()
        ours.close()
        theirs.close()
    # The last 20 of each turn, and one more of the last; the numbers are those of the 4th.
    assert len(found) == KEPT + 1
    assert found == list(range(found[0], found[0] + KEPT + 1))
    assert next(turns, None) is None


def test_summary_export_and_check_work_while_the_engine_runs(path: Path) -> None:
    """They say that the engine runs, and they make no file."""
    with working(path):
        summary = summarize(path)
        assert summary.is_in_use
        assert (summary.unit, summary.fault) == ("host_Unit", None)
        assert summary.waiting >= KEPT
        file = io.StringIO()
        assert export(path, file) >= KEPT
        assert json.loads(file.getvalue().splitlines()[0])["_type"] == "WebPushNotificationMsg"
        checked = examine(path)
        assert checked.is_in_use
        assert (checked.log_fault, checked.faults) == (None, [])
        files = sorted(file.name for file in path.parent.iterdir())
        assert files == ["unit.outbox", "unit.outbox-wal"]
    assert not is_locked(path)
    assert not summarize(path).is_in_use


def test_an_engine_starts_and_writes_while_somebody_looks(path: Path) -> None:
    """A person who reads for long sees the file as it was; the engine has the file to itself."""
    with DurableOutbox(path) as outbox:
        outbox.put(sample(1))
    with snapshot_of(path) as snapshot, DurableOutbox(path) as outbox:
        outbox.put(event("two"))
        outbox._disk.file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert waiting(outbox) == [1, 2]
        assert snapshot.db.execute("SELECT sequence_number FROM messages").fetchall() == [(1,)]


def test_a_process_cannot_look_at_its_own_outbox_this_way(path: Path) -> None:
    """This would release its lock, and another process could take the file."""
    with DurableOutbox(path), pytest.raises(OutboxInUse, match="in use by this process"):
        summarize(path)
    assert summarize(path).waiting == 0


def test_everything_that_a_dead_process_has_left_is_seen(path: Path, tmp_path: Path) -> None:
    """Pages in the file and in the log give what an engine finds when it opens the file."""
    with DurableOutbox(path) as outbox:
        for number in range(300):
            outbox.put(event("x" * 300))
            if number == 150:
                outbox._disk.file.db.execute("PRAGMA wal_checkpoint").fetchall()
        image = crash(path, tmp_path / "image")
    assert summarize(image).waiting == 300
    assert image.with_name("image-wal").stat().st_size > 0
    with DurableOutbox(image) as outbox:
        assert len(outbox) == 300


def test_a_symbolic_link_shows_what_it_points_to(path: Path, tmp_path: Path) -> None:
    """SQLite keeps the log beside the file itself, not beside the link."""
    with DurableOutbox(path) as outbox:
        for _ in range(5):
            outbox.put(event("x"))
        image = crash(path, tmp_path / "image")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(image)
    assert summarize(link).waiting == 5
    assert examine(link).messages == 5
    with DurableOutbox(link) as outbox:
        assert len(outbox) == 5


def test_a_log_that_is_not_whole_counts_up_to_the_damage_and_is_told(
    path: Path, tmp_path: Path
) -> None:
    """The files stay as they are, without a copy: only an engine needs to make one."""
    with DurableOutbox(path) as outbox:
        for number in range(20):
            outbox.put(event(str(number)))
        image = crash(path, tmp_path / "image")
    log = image.with_name("image-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    summary = summarize(image)
    assert summary.fault is not None
    assert 0 < summary.waiting < 20
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_a_log_of_a_file_with_pages_of_another_size_is_told(path: Path, tmp_path: Path) -> None:
    """The two do not belong together."""
    with DurableOutbox(path) as outbox:
        outbox.put(event("a"))
        image = crash(path, tmp_path / "image")
    data = bytearray(image.read_bytes())
    data[16:18] = (8192).to_bytes(2, "big")
    image.write_bytes(data)
    with pytest.raises(OutboxDamaged, match=rf"{image} cannot be read: the pages .* another size"):
        summarize(image)


def test_a_file_that_may_not_be_read_is_told() -> None:
    """It says what it needs."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "unit.outbox"
        DurableOutbox(path).close()
        folder.chmod(0o755)
        path.chmod(0)
        with no_root(), pytest.raises(OutboxError, match="cannot be read: Permission denied"):
            summarize(path)
    finally:
        shutil.rmtree(folder)


def test_a_big_database_of_another_program_is_not_read(path: Path) -> None:
    """Its header shows what it is."""
    path.write_bytes(b"SQLite format 3\0" + bytes(1 << 20))
    with pytest.raises(OutboxError, match="it is the database of another program"):
        summarize(path)
