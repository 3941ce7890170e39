"""The command `trio-runner`: its arguments and its exit code."""

import errno
import gc
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from io import TextIOWrapper
from typing import NoReturn

from trio_runner._cli import (
    _config,
    _config_check,
    _connection,
    _keeping,
    _log,
    _outbox_arguments,
    _simulate_arguments,
    _status_arguments,
    _version,
)
from trio_runner._groups import leaves
from trio_runner._outbox import OUTBOX_BYTES_MAX

__all__ = ["main"]

WRONG_ARGUMENTS = 2
"""The exit code for arguments that cannot be used."""

COLLECTOR = (100_000, 50, 1_000)
"""The thresholds of the garbage collector. Python's own would take 3 % of 200 engines' time."""

PIPE_CLOSED = 128 + 13
"""The exit code when the reader of stdout has gone: the one a shell shows for SIGPIPE. Windows
gets the same."""


def main(argv: list[str] | None = None) -> int:
    """Run the command with these arguments (None: the process's) and return its exit code.

    Raises SystemExit on wrong arguments and after `--help`.
    """
    _let_all_text_be_written()
    gc.set_threshold(*COLLECTOR)
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
        # The interpreter flushes stdout at exit; let what is still in its buffer go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _let_all_text_be_written() -> None:
    """Write characters that stdout's encoding lacks as escapes, as stderr does."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_closed_pipe(error: BaseException) -> bool:
    """Tell whether the reader of stdout has gone.

    Windows reports that as EINVAL, which may mean anything. If the reader has gone, another flush
    fails in the same way.
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
    """Reports wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        text = f"{self.prog}: error: {message} (see {self.prog} --help)\n"
        self.exit(WRONG_ARGUMENTS, text)


def _parse(argv: list[str] | None) -> Namespace:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["engine"]:
        return Namespace(command="engine", rest=argv[1:])  # `bridge` parses these itself
    parser = _Parser(
        prog="trio-runner",
        description="Keep an Open Pectus engine connected to its aggregator.",
        allow_abbrev=False,
    )
    _version.add_option(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="watch a run survive an outage of the aggregator (21 s, needs nothing else)",
        description="Run a simulated engine, its runner and a stand-in for the aggregator in one"
        " process. The aggregator is killed in the middle of a run and comes back 8 s later. Exit"
        " code: 0 if nothing was lost, 1 if something was.",
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
    demo.add_argument("--seed", type=int, default=0, help="seed of the sensors' noise (default: 0)")
    demo.add_argument(
        "--html",
        metavar="FILE",
        help="draw the demo into this file: a self-contained page for a browser",
    )
    _add_simulated_arguments(simulated)
    outbox, deliver = _outbox_arguments.add(commands)
    config = _config_check.add_command(commands)
    status = _status_arguments.add_command(commands)
    if not argv:
        parser.exit(WRONG_ARGUMENTS, parser.format_help())
    arguments, unknown = parser.parse_known_args(argv)
    chosen = {
        "demo": demo,
        "simulated": simulated,
        "simulate": simulate,
        "outbox": outbox,
        "config": config,
        "status": status,
    }[arguments.command]
    if unknown:
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.command == "simulated":
        arguments = _with_config(argv, chosen)
        _connection.find(arguments, chosen)
        _find_status(arguments, chosen)
    if arguments.command == "outbox" and arguments.action == "deliver":
        _connection.find(arguments, deliver)
    if arguments.command == "simulate":
        _simulate_arguments.check(arguments, chosen)
    return arguments


def _add_simulated_arguments(parser: ArgumentParser) -> None:
    """Add the options, spelled like those of Open Pectus's engine."""
    add = parser.add_argument
    _connection.add_options(parser, default=("127.0.0.1", ""))
    add(
        "--name",
        type=_name,
        default="Filtration Skid",
        help="the unit's name (default: %(default)s); an aggregator accepts one engine of each"
        " name",
    )
    add(
        "--outbox",
        metavar="PATH",
        type=_path,
        help="where to keep what is not delivered yet, so that it outlives the process: a file, or"
        " a folder for the unit's file; 'memory' keeps it in memory only (default: in the user's"
        " state folder)",
    )
    add(
        "--outbox-max",
        metavar="SIZE",
        type=_keeping.bytes_of,
        default=OUTBOX_BYTES_MAX,
        help="how much the outbox may hold before samples are thinned (default: 64M)",
    )
    _log.add_options(parser)
    _version.add_option(parser)
    _config.add_options(parser, "how to reach the aggregator")
    _status_arguments.add_options(parser)


def _name(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("a unit needs a name")
    return text


def _path(text: str) -> str:
    if not text:
        raise ArgumentTypeError("a file needs a name")
    return text


def _with_config(argv: list[str], parser: ArgumentParser) -> Namespace:
    """Return the arguments of `simulated`, completed from the file of `--config`."""
    try:
        arguments = _config.parse(parser, argv[1:])
    except _config.ConfigError as error:
        parser.error(str(error))
    arguments.command = "simulated"
    return arguments


def _find_status(arguments: Namespace, parser: ArgumentParser) -> None:
    try:
        _status_arguments.check(arguments)
    except ArgumentTypeError as error:
        parser.error(str(error))


def _run(arguments: Namespace) -> int:
    """Carry out a command. Its modules are imported here, so that `--help` is quick."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C ends the process at once during start-up and shutdown, and in order in between.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if arguments.command == "engine":
        from trio_runner._cli import _engine

        return _engine.run(arguments.rest)
    if arguments.command == "outbox":
        from trio_runner._cli import _outbox

        return _outbox.run(arguments)
    if arguments.command == "config":
        return _config_check.run(arguments)
    if arguments.command == "status":
        from trio_runner._cli import _status_show

        return _status_show.run(arguments)
    if arguments.command == "simulate":
        if arguments.units is not None:
            from trio_runner._cli import _fleet

            return _fleet.run(arguments)
        from trio_runner._cli import _simulate

        return _simulate.run(arguments)

    if arguments.command == "demo":
        from trio_runner._cli import _demo

        return _demo.play(arguments.seed, arguments.html)

    import trio

    from trio_runner._cli import _simulated

    return trio.run(_simulated.run, arguments)
