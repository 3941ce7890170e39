"""The arguments of `trio-runner simulate`; they are read without loading the simulation."""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from argparse import _SubParsersAction

ParserT = TypeVar("ParserT", bound=ArgumentParser)

HOURS_MAX = 100_000

JOBS_MAX = 256

UNITS_MAX = 100_000


def add(commands: "_SubParsersAction[ParserT]") -> ParserT:
    """Add the command that looks for situations which break a promise."""
    simulate = commands.add_parser(
        "simulate",
        allow_abbrev=False,
        help="simulate hours of outages in seconds, and check that every promise is kept",
        description="Simulate an engine, its runner, the network, the disk and the aggregator in"
        " one process on a mock clock, and inject faults. The seed decides everything that is left"
        " to chance, so what fails once fails again. Exit code: 0 if every promise was kept, 1 if"
        " not, or if more than 1,000 seeds did not meet every situation that they should.",
    )
    option = simulate.add_argument
    seeds = simulate.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds",
        metavar="A-B",
        type=_seeds,
        default=range(20),
        help="simulate these seeds (default: 0-19)",
    )
    seeds.add_argument(
        "--seed",
        metavar="N",
        type=_seed,
        dest="seeds",
        default=SUPPRESS,
        help="simulate this seed alone",
    )
    option(
        "--hours",
        metavar="H",
        type=_hours,
        default=Fraction(1, 6),
        help="for how many hours faults happen with each seed, such as 0.5 or 1/6 (default: 1/6)",
    )
    option("--faults", metavar="NAME,...", type=_names, help="inject only faults of these kinds")
    option(
        "--keep", metavar="N,...", type=_numbers, help="inject only the faults with these numbers"
    )
    option("--trace", metavar="FILE", help="write everything that happens to this file")
    option(
        "--html",
        metavar="FILE",
        help="draw everything that happens into this file: a self-contained page for a browser",
    )
    option(
        "--jobs", metavar="N", type=_jobs, default=1, help="how many processes to use (default: 1)"
    )
    option(
        "--shrink",
        action="store_true",
        help="look for a shorter run of the first failing seed that still fails",
    )
    option(
        "--units",
        metavar="N",
        type=_units,
        help="instead, let this many units lose one aggregator, and show how they come back",
    )
    return simulate


def _seed(text: str) -> range:
    if not (text.isascii() and text.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a seed: give a number, 0 or more")
    return range(int(text), int(text) + 1)


def _seeds(text: str) -> range:
    if text.isascii() and text.isdigit():
        raise ArgumentTypeError(f"give a range as in 0-19, or one seed by --seed {text}")
    first, _, last = text.partition("-")
    try:
        seeds = range(_seed(first).start, _seed(last).stop)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{text!r} is not a range of seeds such as 0-19: {error}") from None
    if not seeds:
        raise ArgumentTypeError(f"{text!r} is an empty range: give the lower seed first")
    return seeds


def _hours(text: str) -> Fraction:
    try:
        hours = Fraction(text)
    except (ValueError, ZeroDivisionError):
        hours = Fraction(0)
    if not 0 < hours <= HOURS_MAX:
        raise ArgumentTypeError(f"{text!r} is not a time from 0 to {HOURS_MAX} hours")
    return hours


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = _names(text)
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise ArgumentTypeError(f"{text!r} is not a list of numbers with commas between them")
    return tuple(map(int, numbers))


def _units(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= UNITS_MAX):
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {UNITS_MAX}")
    return int(text)


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= JOBS_MAX):
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {JOBS_MAX}")
    return int(text)


def check(arguments: Namespace, parser: ArgumentParser) -> None:
    """Refuse options that work with one seed only, and unknown faults."""
    if arguments.units is not None:
        for name in ("faults", "keep", "trace", "html", "shrink"):
            if getattr(arguments, name):
                parser.error(f"argument --{name}: not allowed with --units")
        return
    for name in ("keep", "trace", "html"):
        if getattr(arguments, name) is not None and len(arguments.seeds) > 1:
            parser.error(f"argument --{name}: it needs a single seed: give --seed")
    if not arguments.faults:
        return
    from trio_runner.simulation.trials._faults import FAULTS

    for name in arguments.faults:
        if name not in FAULTS:
            known = ", ".join(sorted(FAULTS))
            parser.error(f"argument --faults: there is no fault {name!r}; there are {known}")
