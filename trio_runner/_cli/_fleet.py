"""`trio-runner simulate --units N`: how a fleet that loses its aggregator comes back."""

from argparse import Namespace
from collections.abc import Iterator

from trio_runner.simulation.trials._fleet import run_fleet
from trio_runner.simulation.trials._herd import DIALS_MAX, Account, Herd, Loss

VIOLATED = 1
"""The exit code when something was lost, or too many units dialled at once."""

RUNNERS_MAX = 1_000
"""The most units for which whole runners are simulated; so many take a minute or two."""

RATE = 600
"""How many dials per second the aggregator lets in, unless it is slow."""

SLOW_S = 30
"""How long a slow aggregator takes to let all units in (s)."""

HEAD = f"  {'':<24}{'dials in 100 ms':>17}{'that arrive':>13}{'half back':>11}{'all back':>11}"


def run(arguments: Namespace) -> int:
    """Simulate the fleet, print its account, and return the exit code."""
    units, seed = arguments.units, arguments.seeds.start
    losses = [
        Loss("a glitch", 0, RATE),
        Loss("refused for 5 s", 5, RATE),
        Loss("silent for 30 s", 30, RATE, is_silent=True),
        Loss("refused, then slow", 5, max(units / SLOW_S, 1)),
    ]
    print(f"{units:,} units lose one aggregator, which lets {RATE} in per second.\n")
    broken = list[str]()
    if units <= RUNNERS_MAX:
        print("Units of one process, whole runners", HEAD, sep="\n")
        for loss in losses:
            report = run_fleet(units, loss, seed=seed)
            print(_row(loss.name, report.account), flush=True)
            broken += _broken(loss, report.account, report.violation)
    print("Units of one process, their dials alone", HEAD, sep="\n")
    for loss in losses:
        account = Herd(units, seed, in_one_process=True).lose(loss)
        print(_row(loss.name, account), flush=True)
        broken += _broken(loss, account, None)
    print("As many processes, their dials alone", HEAD, sep="\n")
    for loss in losses:
        print(_row(loss.name, Herd(units, seed).lose(loss)), flush=True)
    herd = Herd(units, seed)
    for number in range(1, 6):
        print(_row(f"herd {number} of the same", herd.lose(losses[1])), flush=True)
    print(*broken or ["\nEvery promise was kept."], sep="\n")
    return VIOLATED if broken else 0


def _row(name: str, account: Account) -> str:
    times = f"{account.median_back_s:>9.2f} s{account.all_back_s:>9.2f} s"
    return f"  {name:<24}{account.dials_most:>17,}{account.arrivals_most:>13,}{times}"


def _broken(loss: Loss, account: Account, violation: str | None) -> Iterator[str]:
    if violation is not None:
        yield f"\n{loss.name}: {violation}"
    if account.dials_most > DIALS_MAX:
        yield f"\n{loss.name}: {account.dials_most} dials in 100 ms, more than {DIALS_MAX}"
