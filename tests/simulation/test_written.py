"""The oracle counts what is written to the disk: a gigabyte a day at most on a healthy link."""

from pathlib import Path
from random import Random

import pytest
from attrs import evolve

from tests.simulation.test_oracle import sample, stopped
from trio_runner import DurableOutbox
from trio_runner.protocol import encode_body
from trio_runner.simulation.stand_ins._disk import COUNTS, SimulatedDisk
from trio_runner.simulation.trials._written import Written, cost

TOO_MUCH = "more than a gigabyte a day is written to the disk on a healthy link"


@pytest.mark.parametrize(
    ("bytes_s", "is_well", "events_cost_s", "found"),
    [
        (11_000, True, 0, []),  # 0.95 GB a day
        (20_000, True, 0, [70]),  # 1 s + (0.6 MB - 20,000) / (20,000 - 11,574) = 69.8 s
        (20_000, True, 9_000, []),
        (2**30, False, 0, []),
    ],
)
def test_more_than_a_gigabyte_a_day_is_noticed_unless_something_is_wrong(
    bytes_s: int, is_well: bool, events_cost_s: float, found: list[int]
) -> None:
    """The oracle notices it within minutes; what events cost may be added."""
    seen: list[int] = []

    def expect(holds: object, what: str) -> None:
        if not holds and not seen:
            assert what == TOO_MUCH
            seen.append(second)

    check = Written(expect)
    for second in range(1, 300):
        check.check_second(
            is_well=is_well,
            bytes_written=second * bytes_s,
            events_cost=second * events_cost_s,
            log_bytes=0,
        )
    assert seen == found


def test_only_events_may_cost_writes_on_a_healthy_link() -> None:
    """Samples are delivered before they are written; a run's end is written in all its forms."""
    end = stopped("a")
    assert cost(sample(1)) == 0
    assert cost(end) == 60_000 + 4 * len(encode_body(end))


@pytest.mark.skipif(not COUNTS.exists(), reason="the system does not count")
def test_a_simulated_disk_counts_what_commits_write(tmp_path: Path) -> None:
    """An event of 100 kB counts at least as much, and an empty commit counts nothing."""
    disk = SimulatedDisk(tmp_path, Random(1))
    with DurableOutbox(disk.path, connect=disk.connect, clock=lambda: 0.0) as outbox:
        before = disk.bytes_written
        outbox.commit()
        assert disk.bytes_written == before
        outbox.put(evolve(stopped("a"), archive=Random(1).randbytes(50_000).hex()))
        assert 50_000 < disk.bytes_written - before < 200_000
