"""The arguments of `trio-runner outbox`."""

import math
from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING, TypeVar

from trio_runner._cli import _connection

if TYPE_CHECKING:
    from argparse import _SubParsersAction

ParserT = TypeVar("ParserT", bound=ArgumentParser)

ACTIONS = {
    "show": "tell what waits, and what was set aside and why; an engine may be running",
    "export": "write the messages that wait, a line of JSON each; an engine may be running",
    "check": "tell whether the file is whole, and what to do if not; an engine may be running",
    "deliver": "send what waits to an aggregator, in the name of the engine that has ended",
    "requeue": "let the messages that were set aside wait again, in their old places",
    "discard": "delete all messages for good",
}


def add(commands: "_SubParsersAction[ParserT]") -> tuple[ParserT, ParserT]:
    """Add the command for people who look after an outbox; return it and its part `deliver`."""
    outbox = commands.add_parser(
        "outbox",
        allow_abbrev=False,
        help="look at, check, deliver or discard what an engine has not delivered",
        description="Look at what an engine has not delivered, while it runs or after its end;"
        " deliver or discard it when it has ended.",
    )
    actions = outbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {
        name: actions.add_parser(name, allow_abbrev=False, help=what, description=f"{what}.")
        for name, what in ACTIONS.items()
    }
    for parser in parsers.values():
        parser.add_argument("path", metavar="PATH", type=_path, help="the outbox's file")
    _add_export(parsers["export"])
    _add_deliver(parsers["deliver"])
    parsers["discard"].add_argument("--yes", action="store_true", help="do not ask")
    return outbox, parsers["deliver"]


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="a new file, instead of stdout")
    parser.add_argument(
        "--set-aside", action="store_true", help="those that were set aside instead"
    )


def _add_deliver(parser: ArgumentParser) -> None:
    parser.description = (
        "Send what the outbox of an engine that has ended holds, from any machine, under that"
        " engine's own name. A run that was on is ended, even if nothing gets through. What is not"
        " delivered stays in the file; exit code 0 if nothing is left in it, 1 if something is."
        " Who takes the file to another machine takes PATH-wal along."
    )
    _connection.add_options(parser, default=None)
    parser.add_argument(
        "--for-all",
        action="store_true",
        help="let everybody see a unit of which the outbox does not say who may",
    )
    parser.add_argument(
        "--give-up-after",
        metavar="SECONDS",
        type=_seconds,
        default=math.inf,
        help="end when the aggregator has not taken all by then (default: try until Ctrl-C)",
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
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds
