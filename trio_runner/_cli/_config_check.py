"""`trio-runner config check`: check whether a command could run with a file of settings."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trio_runner._cli._config import Config, ConfigError, load, where
from trio_runner._cli._network import network_options, source, split_where
from trio_runner._cli._secret import SecretUnusable, find_secret
from trio_runner._cli._summary import count

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

WRONG = 2
"""The exit code for a file with which a command would not run."""


def add_command(commands: "_SubParsersAction[Any]") -> "ArgumentParser":
    """Add the command `config`."""
    config: ArgumentParser = commands.add_parser(
        "config",
        allow_abbrev=False,
        help="check a file of settings for --config",
        description="Check a file of settings for --config, without running anything.",
    )
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        allow_abbrev=False,
        help="say what is wrong with a file of settings",
        description="Say what is wrong with a file of settings, one line for each mistake. The"
        " files that it names must exist: UODs, secret, certificates. Exit code: 0 if all is well,"
        " otherwise 2.",
    )
    check.add_argument("file", metavar="FILE", help="the file (TOML)")
    return config


def run(arguments: Namespace) -> int:
    """Check the file; return the exit code."""
    try:
        config = load(arguments.file)
        errors = [*config.errors, *_wrong_on_this_computer(config)]
    except ConfigError as error:
        errors = [str(error)]
    for text in errors:
        print(f"trio-runner config check: error: {text}", file=sys.stderr)
    if errors:
        return WRONG
    print(f"{arguments.file} is valid: {', '.join(_told(config))}.")
    return 0


def _told(config: Config) -> Iterator[str]:
    yield f"{count(len(config.uods), 'unit')} ({', '.join(config.uods) or 'none'})"
    yield f"the aggregator at {where(config)}"


def _wrong_on_this_computer(config: Config) -> Iterator[str]:
    """Yield what a start would find wrong with the files and the proxy that the settings name."""
    given = Namespace(
        **{
            **dict.fromkeys(("ca_file", "client_cert", "client_key", "secret_file")),
            "secure": False,
            "proxy": True,
            "aggregator_port": None,
            **config.settings,
        },
        places=config.places,
    )
    port = given.aggregator_port
    try:
        network_options(given, *_host_and_port(config, port))
    except ArgumentTypeError as error:
        yield str(error)
    try:
        find_secret("", given.secret_file, source=source(given, "secret_file", "--secret-file"))
    except SecretUnusable as error:
        yield str(error)
    for uod in config.uods.values():
        if not Path(uod).is_file():
            yield f"{config.places[uod]}: there is no file {uod}"


def _host_and_port(config: Config, port: str | None) -> tuple[str, int | None, str]:
    host, path = split_where(where(config))
    return host, None if port is None else int(port), path
