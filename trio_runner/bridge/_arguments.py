"""The arguments of `pectus-engine`, read by the package's own parser, and the runner's own."""

import argparse
from collections.abc import Callable
from typing import Any

from attrs import frozen
from openpectus.engine import main as package
from pydantic import TypeAdapter, ValidationError

from trio_runner.bridge._package import uod_path

Read = Callable[[argparse.ArgumentParser, list[str]], argparse.Namespace]

AT_ONCE, FIRST_STEADY_STATE = "at-once", "first-steady-state"


@frozen
class Arguments:
    """What the command is to do."""

    hostname: str
    """The aggregator's host name, maybe with a path."""
    port: int | None
    """None for the default: 9800, or 443 if secure."""
    network: argparse.Namespace
    """All arguments as parsed; the command reads its own and the network's options from here."""
    uods: list[str]
    validate: bool
    show_register_details: bool
    sentry_event_level: str
    secret: str
    secret_file: str | None
    ignore_version_error: bool
    outbox: str | None
    outbox_max: str | None
    start_at_once: bool


def parse(
    argv: list[str],
    prog: str,
    add_options: Callable[[argparse._ArgumentGroup], None],
    read: Read = argparse.ArgumentParser.parse_args,
) -> Arguments:
    """Parse the arguments; `add_options` adds options to the parser and `read` runs it.

    Raises SystemExit, with code 0 after `--help` and code 2 for wrong arguments, and whatever
    `read` raises.
    """
    parser = _make_parser(prog, add_options)
    given = read(parser, argv)
    return Arguments(
        hostname=given.aggregator_hostname,
        port=_port(parser, given.aggregator_port),
        network=given,
        uods=[uod_path(uod) for uod in given.uod or [package.default_uod]],
        validate=bool(given.validate),
        show_register_details=bool(given.show_register_details),
        sentry_event_level=given.sentry_event_level,
        secret=given.secret,
        secret_file=given.secret_file,
        ignore_version_error=_truth(parser, given.ignore_version_error),
        outbox=_outbox(parser, given.outbox),
        outbox_max=given.outbox_max,
        start_at_once=given.start_engine == AT_ONCE,
    )


def _make_parser(
    prog: str, add_options: Callable[[argparse._ArgumentGroup], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = package.get_arg_parser()
    parser.prog = prog
    parser.description = "Run Open Pectus engines and keep them connected to their aggregator."
    _allow_several_uods(parser)
    own = parser.add_argument_group("options of trio-runner")
    own.add_argument(
        "--outbox",
        metavar="PATH",
        help="where to keep what is not delivered yet, so that it outlives the process: a file, or"
        " a folder with a file for each unit, which several UODs need; 'memory' keeps it in memory"
        " only (default: a file for each unit in the user's state folder)",
    )
    own.add_argument(
        "--outbox-max",
        metavar="SIZE",
        help="how much an outbox may hold before samples are thinned (default: 64M)",
    )
    own.add_argument(
        "--secret-file",
        metavar="FILE",
        help="read the secret from this file (default: TRIO_RUNNER_SECRET in the environment, or"
        " systemd's credential 'secret')",
    )
    add_options(own)
    own.add_argument(
        "--start-engine",
        choices=(AT_ONCE, FIRST_STEADY_STATE),
        default=FIRST_STEADY_STATE,
        help="when the engine begins to control its hardware: as soon as the process starts, or"
        " when it is first connected to the aggregator (default: %(default)s)",
    )
    return parser


def _allow_several_uods(parser: Any) -> None:
    """Let `--uod` be given several times, once for each unit."""
    old = next(action for action in parser._actions if action.dest == "uod")
    parser._handle_conflict_resolve(None, [(name, old) for name in old.option_strings])
    parser.add_argument(
        *("-uod", "--uod"),
        action="append",
        metavar="UOD",
        help="Filename of the UOD; give it several times for several units (default: the demo"
        " unit)",
    )


def _port(parser: argparse.ArgumentParser, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        parser.error(f"argument -ap/--aggregator_port: {text!r} is not a port from 1 to 65535")
    return int(text)


def _outbox(parser: argparse.ArgumentParser, path: str | None) -> str | None:
    if path == "":
        parser.error("argument --outbox: a file needs a name")
    return path


def _truth(parser: argparse.ArgumentParser, value: object) -> bool:
    try:
        return bool(TypeAdapter(bool).validate_python(value))  # as the package's message reads it
    except ValidationError:
        parser.error(
            f"argument -ignore/--ignore_version_error: it must be True or False, not {value!r}"
        )
