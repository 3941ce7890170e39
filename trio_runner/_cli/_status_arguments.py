"""The command line of the status: `--status`, `--alarm-after`, and the command `status`."""

import importlib
import math
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction

ALARM_AFTER = "5m"

PORT = "9801"
"""The port where `trio-runner status` looks by default; the aggregator's is 9800."""

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add `--status` and `--alarm-after`."""
    parser.add_argument(
        "--status",
        metavar="[HOST:]PORT",
        type=address_of,
        help="serve the status of the units over HTTP, read-only: a page, /health, /metrics for"
        " Prometheus and /status.json. Without a HOST only this computer can read it; with one,"
        " all who reach that address can",
    )
    parser.add_argument(
        "--alarm-after",
        metavar="TIME",
        type=seconds_of,
        default=ALARM_AFTER,
        help="with --status: /health fails when the aggregator has been away for this long, such as"
        " 90, 90s, 5m or 1h (default: %(default)s)",
    )


def check(arguments: Namespace) -> None:
    """Raise ArgumentTypeError if `--status` is given without the packages that it needs."""
    if arguments.status is None:
        return
    try:
        importlib.import_module("trio_runner.status")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("trio_runner"):
            raise
        raise ArgumentTypeError(
            "argument --status: it needs more packages: pip install '.[status]' in the folder of"
            " this project"
        ) from None


def add_command(commands: "_SubParsersAction[Any]") -> ArgumentParser:
    """Add the command `status`."""
    parser: ArgumentParser = commands.add_parser(
        "status",
        allow_abbrev=False,
        help="show how the units of a running command are doing",
        description="Show how the units of a command with --status are doing, or what waits in an"
        " outbox. Exit code: 0 all is well; 1 warning (the aggregator is away, but for less than"
        " --alarm-after; catching up; starting); 2 critical (away for longer, samples given up,"
        " the disk fails, messages set aside, a unit has failed); 3 unknown (nothing can be"
        " reached).",
    )
    parser.add_argument(
        "where",
        nargs="?",
        default=PORT,
        metavar="URL|[HOST:]PORT|OUTBOX",
        help="where the status is served, or the file of an outbox (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of an address. Raises ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or text.startswith(":"):
        raise ArgumentTypeError(f"{text!r} is not a [HOST:]PORT, such as 9801 or 0.0.0.0:9801")
    return host or "127.0.0.1", int(port)


def seconds_of(text: str) -> float:
    """Return the seconds that a text like `90`, `5m` or `1h` means. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|min|h)?", text, re.ASCII)
    seconds = float(match[1]) * SECONDS[(match[2] or "").removesuffix("in")] if match else math.nan
    if not seconds > 0:
        raise ArgumentTypeError(
            f"{text!r} is not a time: give seconds, or a time such as 90s, 5m or 1h"
        )
    return seconds
