"""The command `trio-runner`: its arguments and its exit code."""

import errno
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from trio_runner._cli import _keeping, _network, _secret, _simulate_arguments
from trio_runner._groups import leaves
from trio_runner._outbox import OUTBOX_BYTES_MAX

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["main"]

WRONG_ARGUMENTS = 2
"""The exit code for arguments that cannot be used."""

PIPE_CLOSED = 128 + 13
"""The exit code of a program whose reader has gone: as a shell shows SIGPIPE, also on Windows."""


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (None: the process's) and return its exit code.

    Raises SystemExit on wrong arguments and after `--help`.
    """
    _let_all_text_be_written()
    code = PIPE_CLOSED
    try:
        try:
            code = _run(_parse(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BaseException as error:  # noqa: ASYNC103 - raised unless it is a closed pipe
        if not all(map(_is_closed_pipe, leaves(error))):
            raise
        # What is still in the buffer goes nowhere when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _let_all_text_be_written() -> None:
    """Show what the encoding of stdout does not have by its number, as stderr does."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_closed_pipe(error: BaseException) -> bool:
    """Tell whether the reader of stdout has gone.

    Windows says that with EINVAL, which may mean anything; but then no flush succeeds any more.
    """
    if isinstance(error, BrokenPipeError):
        return True
    if not isinstance(error, OSError) or error.errno != errno.EINVAL or sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
    except OSError as again:
        return again.errno == errno.EINVAL
    return False


class _Parser(ArgumentParser):
    """Tells of wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: error: {message} (see {self.prog} --help)\n"
        self.exit(WRONG_ARGUMENTS, text)


def _parse(argv: list[str] | None) -> Namespace:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["engine"]:
        return Namespace(command="engine", rest=argv[1:])  # the package has a parser of its own
    parser = _Parser(
        prog="trio-runner",
        description="Keep an Open Pectus engine connected to its aggregator.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="watch a run survive an outage of the aggregator (20 s, needs nothing else)",
        description="Run a simulated engine, its runner and a stand-in for the aggregator in one"
        " process. The aggregator is killed in mid-run and comes back 8 s later. Exit code 0 if"
        " nothing was lost, 1 if something was.",
    )
    simulated = commands.add_parser(
        "simulated",
        allow_abbrev=False,
        help="run a simulated engine against a real aggregator",
        description="Run a simulated filtration skid against a real aggregator, until Ctrl-C. Open"
        " the aggregator's web page to see it and to start a run.",
    )
    simulate = _simulate_arguments.add(commands)
    commands.add_parser("engine", help="run real Open Pectus engines with their UODs")
    demo.add_argument("--seed", type=int, default=0, help="of the sensors' noise (default: 0)")
    _add_simulated_arguments(simulated)
    outbox = _add_outbox(commands)
    arguments, unknown = parser.parse_known_args(argv)
    chosen = {"demo": demo, "simulated": simulated, "simulate": simulate, "outbox": outbox}[
        arguments.command
    ]
    if unknown:
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.command == "simulated":
        _find_network(arguments, chosen)
        _find_secret(arguments, chosen)
    if arguments.command == "simulate":
        _simulate_arguments.check(arguments, chosen)
    return arguments


def _add_simulated_arguments(parser: ArgumentParser) -> None:
    """Add the options, spelled as those of Open Pectus's engine."""
    add = parser.add_argument
    add(
        "-ahn",
        "--aggregator_hostname",
        metavar=_network.WHERE,
        type=_network.split_where,
        default=("127.0.0.1", ""),
        help="where the aggregator is (default: 127.0.0.1)",
    )
    add(
        "-ap",
        "--aggregator_port",
        metavar="PORT",
        type=_port,
        help="its port (default: 9800, or 443 with --secure)",
    )
    add("-s", "--secure", action=BooleanOptionalAction, default=False, help="use https and wss")
    _network.add_options(parser)
    add("-secret", "--secret", default="", help="the secret that the aggregator asks for; better:")
    add("--secret-file", metavar="FILE", help=_secret.HELP)
    add(
        "-ignore",
        "--ignore_version_error",
        action="store_true",
        help="ask the aggregator to take an engine of another version",
    )
    add(
        "--name",
        type=_name,
        default="Filtration Skid",
        help="of the unit (default: %(default)s); an aggregator takes one engine of a name",
    )
    add(
        "--outbox",
        metavar="PATH",
        type=_path,
        help="keep in this file, or in the unit's in this folder, what is not delivered yet, so"
        " that it outlives the process; 'memory': do not (default: in the user's state folder)",
    )
    add(
        "--outbox-max",
        metavar="SIZE",
        type=_keeping.bytes_of,
        default=OUTBOX_BYTES_MAX,
        help="what it may hold, before samples are thinned (default: 64M)",
    )


def _add_outbox(commands: "_SubParsersAction[_Parser]") -> ArgumentParser:
    """Add the command for people who look after an outbox."""
    outbox = commands.add_parser(
        "outbox",
        allow_abbrev=False,
        help="look at, export or discard what an engine has not delivered",
        description="Look at, export or discard what an engine that has ended left in its outbox.",
    )
    actions = outbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("show", "tell what waits, and what was set aside and why"),
        ("export", "write the messages that wait, a line of JSON each"),
        ("discard", "delete all messages for good"),
    ):
        action = actions.add_parser(name, allow_abbrev=False, help=what, description=f"{what}.")
        action.add_argument("path", metavar="PATH", type=_path, help="the outbox's file")
        if name == "export":
            action.add_argument("--output", metavar="FILE", help="a new file, instead of stdout")
            action.add_argument(
                "--set-aside", action="store_true", help="those that were set aside instead"
            )
        if name == "discard":
            action.add_argument("--yes", action="store_true", help="do not ask")
    return outbox


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def _name(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("a unit needs a name")
    return text


def _path(text: str) -> str:
    if not text:
        raise ArgumentTypeError("a file needs a name")
    return text


def _find_network(arguments: Namespace, parser: ArgumentParser) -> None:
    """Refuse files and proxies that are of no use, before anything runs."""
    host, path = arguments.aggregator_hostname
    arguments.aggregator_hostname = host
    try:
        arguments.network = _network.network_options(
            arguments, host, arguments.aggregator_port, path
        )
    except ArgumentTypeError as error:
        parser.error(str(error))


def _find_secret(arguments: Namespace, parser: ArgumentParser) -> None:
    arguments.is_secret_visible = bool(arguments.secret)
    try:
        arguments.secret = _secret.find_secret(arguments.secret, arguments.secret_file)
    except _secret.SecretUnusable as error:
        parser.error(str(error))


def _run(arguments: Namespace) -> int:
    """Carry out a command; what it needs is imported here, so that `--help` is quick."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C during the start and in the shutdown ends at once; between them it ends in order.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments.command == "engine":
        from trio_runner._cli import _engine

        return _engine.run(arguments.rest)
    if arguments.command == "outbox":
        from trio_runner._cli import _outbox

        return _outbox.run(arguments)
    if arguments.command == "simulate":
        from trio_runner._cli import _simulate

        return _simulate.run(arguments)

    import trio

    if arguments.command == "demo":
        from trio_runner._cli import _demo

        return trio.run(_demo.run, arguments.seed)

    from trio_runner._cli import _simulated

    return trio.run(_simulated.run, arguments)
