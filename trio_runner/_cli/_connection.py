"""The command-line options that say where the aggregator is and how it lets an engine in.

They are spelled like those of Open Pectus's engine.
"""

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace

from trio_runner._cli import _network, _secret


def add_options(parser: ArgumentParser, default: tuple[str, str] | None) -> None:
    """Add the options. Without a default, the aggregator's host must be given."""
    add = parser.add_argument
    add(
        "-ahn",
        "--aggregator_hostname",
        metavar=_network.WHERE,
        type=_network.split_where,
        default=default,
        required=default is None,
        help="where the aggregator is" + (f" (default: {default[0]})" if default else ""),
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
    add(
        "-secret",
        "--secret",
        default="",
        help="the secret that the aggregator asks for (better in a file: others can see it here)",
    )
    add("--secret-file", metavar="FILE", help=_secret.HELP)
    add(
        "-ignore",
        "--ignore_version_error",
        action="store_true",
        help="ask the aggregator to accept an engine of another version",
    )


def find(arguments: Namespace, parser: ArgumentParser) -> None:
    """Resolve the host, the network options and the secret.

    Exits with an error, before anything runs, if a file, a proxy or the secret cannot be used.
    """
    host, path = arguments.aggregator_hostname
    arguments.aggregator_hostname = host
    arguments.is_secret_visible = bool(arguments.secret)
    try:
        arguments.network = _network.network_options(
            arguments, host, arguments.aggregator_port, path
        )
        source = _network.source(arguments, "secret_file", "--secret-file")
        arguments.secret = _secret.find_secret(
            arguments.secret, arguments.secret_file, source=source
        )
    except (ArgumentTypeError, _secret.SecretUnusable) as error:
        parser.error(str(error))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
