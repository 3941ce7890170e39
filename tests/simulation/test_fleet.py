"""Herds of engines that lose one aggregator: how often they dial, and how soon all are back.

The rules and their arithmetic are in `trio_runner/_backoff.py`.
"""

import pytest

from trio_runner.simulation.trials._fleet import run_fleet
from trio_runner.simulation.trials._herd import Herd, Loss, most_within

RATE = 600
"""How many dials the aggregator lets in (1/s): 60 in 100 ms."""


def test_the_fullest_window_is_found() -> None:
    """The window's start belongs to it, its end does not."""
    assert most_within([]) == 0
    assert most_within([0, 0.05, 0.1, 0.15, 0.19, 0.3]) == 3
    assert most_within(n * 0.002 for n in range(1000)) == 50  # a turn each


@pytest.mark.parametrize("engines", [100, 450])
@pytest.mark.parametrize("away_s", [0, 1, 5])
def test_up_to_450_processes_never_dial_more_than_60_times_in_100_ms(
    engines: int, away_s: float
) -> None:
    """Refused dials count too: 450 / 1.375 s * 0.1 s = 33 on average. All are back within 2 s.

    The aggregator's queue adds 450 / 600 s in all if all dials come at the same moment.
    """
    for seed in range(10):
        account = Herd(engines, seed).lose(Loss("restart", away_s, RATE))
        assert account.dials_most <= 60
        assert account.all_back_s <= 2 + engines / RATE
        assert account.median_back_s < 0.9


def test_one_unit_is_back_soon_after_a_short_outage() -> None:
    """In half of the cases it takes half a wait, 1.375 s / 2 = 0.69 s, whenever the outage ends."""
    for away_s in (0, 1, 5, 29):
        back_s = sorted(
            Herd(1, seed).lose(Loss("restart", away_s, RATE)).all_back_s for seed in range(300)
        )
        assert back_s[150] == pytest.approx(0.69, abs=0.1)
        assert back_s[-1] <= 2.01


@pytest.mark.parametrize("units", [1_000, 10_000])
@pytest.mark.parametrize(
    "loss",
    [
        Loss("glitch", 0, RATE),
        Loss("restart", 5, RATE),
        Loss("network", 30, RATE, is_silent=True),
        Loss("slow", 5, 200),
    ],
    ids=lambda loss: loss.name,
)
def test_units_of_one_process_dial_50_times_in_100_ms_however_many_they_are(
    units: int, loss: Loss
) -> None:
    """They take turns 2 ms apart, and all are back within three times what their rate allows.

    After a silent network it takes 10 s more, because a dial was under way.
    """
    account = Herd(units, in_one_process=True).lose(loss)
    assert account.dials_most <= 50
    rate = min(loss.rate, 500)
    assert account.all_back_s <= 3 * units / rate + 12


@pytest.mark.parametrize("line_s", [5, 10, 20, 30, 40])
def test_a_slow_aggregator_lets_all_in_within_three_times_its_own_time(line_s: float) -> None:
    """It serves dials that were given up first, but an engine's next dial waits 4 times as long."""
    engines = 200
    account = Herd(engines).lose(Loss("slow", 5, engines / line_s))
    assert len(account.back) == engines
    assert account.all_back_s <= 3 * line_s + 2


def test_ten_thousand_processes_dial_less_often_after_the_first_herd() -> None:
    """The first averages 10,000 / 1.375 s * 0.1 s = 727 dials in 100 ms, the next half of that.

    When the longest wait is 10 s, the average is 10,000 / (11/16 * 10 s) * 0.1 s = 145.
    """
    herd = Herd(10_000)
    dials = list[int]()
    for _ in range(5):
        account = herd.lose(Loss("restart", 5, RATE))
        dials.append(account.dials_most)
        assert account.all_back_s <= 3 * 10_000 / RATE
    first, second, third, *others = dials
    assert 727 < first < 900
    assert second < 0.6 * first
    assert third < 0.7 * second
    assert max(others) < 250


def test_a_long_outage_is_followed_by_a_fifth_of_the_dials() -> None:
    """After 150 s away, waits are 3.75 to 10 s: 2,000 engines make 29 dials in 100 ms, not 145."""
    account = Herd(2_000).lose(Loss("night", 200, RATE))
    late = [at for at in account.dialled if at > 160]
    assert most_within(late) <= 60
    assert account.all_back_s <= 10 + 2_000 / RATE


@pytest.mark.parametrize(
    ("loss", "in_one_process"),
    [
        (Loss("restart", 5, RATE), True),
        (Loss("restart", 5, RATE), False),
        (Loss("network", 30, RATE, is_silent=True), False),
        (Loss("slow", 5, 3), False),
    ],
)
def test_real_runners_dial_as_the_model_says(loss: Loss, in_one_process: bool) -> None:
    """100 runners dial as often and as densely, are back as soon, and lose nothing.

    Small differences remain: the stand-in ends one link after the other, and chance does the rest.
    """
    report = run_fleet(100, loss, in_one_process=in_one_process)
    assert report.violation is None
    seen, said = report.account, Herd(100, in_one_process=in_one_process).lose(loss)
    assert len(seen.dialled) == pytest.approx(len(said.dialled), rel=0.1)
    assert seen.dials_most == pytest.approx(said.dials_most, abs=6)
    assert seen.arrivals_most == pytest.approx(said.arrivals_most, abs=6)
    assert seen.all_back_s == pytest.approx(said.all_back_s, rel=0.2)


def test_the_same_seed_gives_the_same_fleet() -> None:
    """The same seed gives the same fleet to the last bit, and another seed gives another fleet."""
    loss = Loss("restart", 2, RATE)
    reports = [run_fleet(5, loss, seed=seed) for seed in (1, 1, 2)]
    assert reports[0] == reports[1] != reports[2]
