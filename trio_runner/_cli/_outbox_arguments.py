"""The arguments of `trio-runner outbox`."""

import math
from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING, TypeVar

from trio_runner._cli import _connection

if TYPE_CHECKING:
    from argparse import _SubParsersAction

ParserT = TypeVar("ParserT", bound=ArgumentParser)

ACTIONS = {
    "show": "show what waits, and what was set aside and why; an engine may be running",
    "export": "write the messages that wait, one line of JSON each; an engine may be running",
    "check": "tell whether the file is intact, and what to do if not; an engine may be running",
    "deliver": "send what waits to an aggregator, in the name of an engine that has ended",
    "requeue": "let the messages that were set aside wait again, in their old places",
    "discard": "delete all messages for good",
}


def add(commands: "_SubParsersAction[ParserT]") -> tuple[ParserT, ParserT]:
    """Add the command for people who look after an outbox; return it and its part `deliver`."""
    outbox = commands.add_parser(
        "outbox",
        allow_abbrev=False,
        help="look at, check, deliver or discard what an engine has not delivered",
        description="Look at what an engine has not delivered, while it runs or after it has"
        " ended; deliver or discard it when the engine has ended.",
    )
    actions = outbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {
        name: actions.add_parser(
            name, allow_abbrev=False, help=what, description=f"{what[0].upper()}{what[1:]}."
        )
        for name, what in ACTIONS.items()
    }
    for parser in parsers.values():
        parser.add_argument("path", metavar="PATH", type=_path, help="the file of the outbox")
    _add_export(parsers["export"])
    _add_deliver(parsers["deliver"])
    parsers["discard"].add_argument("--yes", action="store_true", help="delete without asking")
    return outbox, parsers["deliver"]


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="write to this new file instead of stdout")
    parser.add_argument(
        "--set-aside", action="store_true", help="write the messages that were set aside instead"
    )


def _add_deliver(parser: ArgumentParser) -> None:
    parser.description = (
        "Send what waits in the outbox of an engine that has ended, from any machine, under that"
        " engine's own name. A run that was still on is ended, even if nothing gets through. What"
        " is not delivered stays in the file. Exit code: 0 if nothing is left in it, 1 if something"
        " is. If you move the file to another machine, move PATH-wal with it."
    )
    _connection.add_options(parser, default=None)
    parser.add_argument(
        "--for-all",
        action="store_true",
        help="show the unit to everybody if the outbox does not say who may see it",
    )
    parser.add_argument(
        "--give-up-after",
        metavar="SECONDS",
        type=_seconds,
        default=math.inf,
        help="end after this many seconds even if messages still wait (default: try until Ctrl-C)",
    )


def _path(text: str) -> str:
    if not text:
        raise ArgumentTypeError("a file needs a name")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
