"""`--config FILE`: the settings of a command in a TOML file. The command line overrides the file.

Each key stands for an option. Its value is checked here, so that an error names the file, the line
and the key. Paths are relative to the file's folder.
"""

import tomllib
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from trio_runner._cli._keeping import bytes_of
from trio_runner._cli._log import JSON, TEXT
from trio_runner._cli._network import split_where
from trio_runner._cli._status_arguments import address_of, seconds_of
from trio_runner.net import spelled_out

UNITS = "units"
"""The name of the table that holds one table for each unit."""

OF_ENGINES = "outbox", "outbox_max", "status"
"""Options that `simulated` ignores, so that a simulated engine does not get in the way of the real
ones that the file is for."""

OVERRULES = {"secret": "secret_file", "client_cert": "client_key"}
"""Each option of the command line, and the setting of the file that it makes useless."""


class ConfigError(Exception):
    """A file of settings is wrong; the message says where, which key, and why."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ArgumentTypeError(f'it must be a string such as "...", not {value!r}')
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"it must be true or false, not {value!r}")
    return value


def _port(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ArgumentTypeError(f"{value!r} is not a port from 1 to 65535")
    return str(value)


def _host(value: object) -> str:
    spelled = spelled_out(_text(value))
    if spelled is not None:
        raise ArgumentTypeError(f"{value!r} is not a host name: give {_as_keys(*spelled)}")
    host, path = split_where(_text(value))
    if path:
        raise ArgumentTypeError("it must be the host alone: give the path as aggregator.path")
    return host


def _as_keys(host: str, port: int | None, path: str, is_secure: bool) -> str:
    keys = {"host": f"'{host}'", "port": port, "path": path and f"'{path}'", "secure": is_secure}
    return ", ".join(f"{key} = {str(value).lower()}" for key, value in keys.items() if value)


def _path(value: object) -> str:
    return split_where(f"host/{_text(value).strip('/')}")[1]


def _proxy(value: object) -> str | bool:
    return value if value is False else _text(value)


def _size(value: object) -> str:
    bytes_of(_text(value))
    return _text(value)


def _address(value: object) -> str:
    text = str(value) if isinstance(value, int) else _text(value)
    address_of(text)
    return text


def _time(value: object) -> str:
    text = str(value) if isinstance(value, int | float) else _text(value)
    seconds_of(text)
    return text


def _one_of(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in choices:
            raise ArgumentTypeError(f"{value!r} is not one of {', '.join(choices)}")
        return str(value)

    return check


@frozen
class Key:
    """What a key of the file stands for."""

    option: str
    """The option's name in the parsed arguments."""
    check: Callable[[object], object]
    """Returns the option's value; raises ArgumentTypeError."""
    is_file: bool = False


KEYS = {
    "log_format": Key("log_format", _one_of(TEXT, JSON)),
    "secret_file": Key("secret_file", _text, is_file=True),
    "ignore_version_error": Key("ignore_version_error", _truth),
    "start_engine": Key("start_engine", _one_of("at-once", "first-steady-state")),
    "aggregator.host": Key("aggregator_hostname", _host),
    "aggregator.path": Key("aggregator_path", _path),
    "aggregator.port": Key("aggregator_port", _port),
    "aggregator.secure": Key("secure", _truth),
    "aggregator.proxy": Key("proxy", _proxy),
    "aggregator.ca_file": Key("ca_file", _text, is_file=True),
    "aggregator.client_cert": Key("client_cert", _text, is_file=True),
    "aggregator.client_key": Key("client_key", _text, is_file=True),
    "outbox.folder": Key("outbox", _text, is_file=True),
    "outbox.max": Key("outbox_max", _size),
    "status.address": Key("status", _address),
    "status.alarm_after": Key("alarm_after", _time),
    f"{UNITS}.NAME.uod": Key("uod", _text, is_file=True),
}


@define
class Config:
    """What a file says, and what is wrong in it."""

    path: Path
    settings: dict[str, Any] = field(factory=dict)
    """The values of all options except the units'."""
    uods: dict[str, str] = field(factory=dict)
    """The path of each unit's UOD, by the unit's name."""
    places: dict[str, str] = field(factory=dict)
    """Where an option, or the UOD at a path, is set: the file, the line and the key."""
    errors: list[str] = field(factory=list)


def load(file: str) -> Config:
    """Read a file of settings; list its mistakes in `errors`.

    Raises ConfigError if the file cannot be read at all.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    config = Config(path)
    for keys, value in _leaves(data):
        _take(config, keys, value, f"{file}, line {line_of(text, keys)}: {_dotted(keys)}")
    return config


def _leaves(
    table: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in table.items():
        keys = (*above, name)
        if isinstance(value, dict) and _is_table(keys):
            yield from _leaves(value, keys)
            if above == (UNITS,) and "uod" not in value:
                yield (*keys, "uod"), None
        else:
            yield keys, value


def _is_table(keys: tuple[str, ...]) -> bool:
    return (keys[0] == UNITS and len(keys) < 3) or any(
        known.startswith(f"{_dotted(keys)}.") for known in KEYS
    )


def _dotted(keys: tuple[str, ...]) -> str:
    return ".".join(keys)


def _take(config: Config, keys: tuple[str, ...], value: object, place: str) -> None:
    is_of_unit = keys[0] == UNITS and len(keys) == 3
    known = f"{UNITS}.NAME.{keys[2]}" if is_of_unit else _dotted(keys)
    if known not in KEYS:
        config.errors.append(f"{place}: {_unknown(keys, known)}")
        return
    key = KEYS[known]
    if is_of_unit and value is None:
        config.errors.append(f'{place}: it is missing: give the path of its UOD, as in "skid.py"')
        return
    try:
        read = key.check(value)
    except ArgumentTypeError as error:
        config.errors.append(f"{place}: {error}")
        return
    if key.is_file:
        read = str(config.path.parent / str(read))
    if is_of_unit:
        config.uods[keys[1]] = str(read)
    else:
        config.settings[key.option] = read
    config.places[str(read) if is_of_unit else key.option] = place


def _unknown(keys: tuple[str, ...], known: str) -> str:
    """Return what is wrong with an unknown key."""
    if _is_table(keys):
        return f"it must be a table: [{_dotted(keys)}]"
    same = [name for name in KEYS if name.rpartition(".")[2] == keys[-1]]
    tables = {name.partition(".")[0] for name in KEYS}
    near = same or get_close_matches(known, [*KEYS, *tables], n=1)
    return f"there is no such key{f'; did you mean {near[0]}?' if near else ''}"


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """Return the number of the line that sets a key or else begins its table, or 1 if none does.

    The TOML parser does not report lines, so this looks at how each line begins. It mistakes a line
    inside a multi-line string for a key if it looks like one.
    """
    table: tuple[str, ...] = ()
    found: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = _parsed(stripped.strip("[").partition("]")[0])
            found.setdefault(table, number)
        else:
            key = _parsed(stripped.partition("=")[0])
            if key:
                found.setdefault((*table, *key), number)
    whole = [keys[:length] for length in range(len(keys), 0, -1)]
    return next((found[part] for part in whole if part in found), 1)


def _parsed(key: str) -> tuple[str, ...]:
    """Return the names in a dotted key, or () if it is not a key."""
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    names = []
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    return tuple(names)


# The arguments


def add_options(parser: ArgumentParser | _ArgumentGroup, what: str) -> None:
    """Add `--config`; `what` tells the help which settings are read from the file."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"read {what} from this TOML file; the command line overrides it",
    )


def add_unit_option(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add `--unit`."""
    parser.add_argument("--unit", metavar="NAME", help="run only this unit of the file")


def parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    """Return the arguments; take what the command line leaves out from the file of `--config`.

    Raises ConfigError, and SystemExit after `--help` and on wrong arguments.
    """
    given = parser.parse_args(argv)
    given.places = {}
    if given.config is not None:
        _fill(given, load(given.config), _said(parser, argv), parser)
    elif getattr(given, "unit", None) is not None:
        raise ConfigError("argument --unit: it needs --config")
    return given


def _said(parser: ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """Return only the arguments that the command line itself gives, without any default."""
    nothing = Namespace(**{action.dest: None for action in parser._actions})
    said = vars(parser.parse_args(argv, nothing))
    return {option: value for option, value in said.items() if value is not None}


def _fill(given: Namespace, config: Config, said: dict[str, Any], parser: ArgumentParser) -> None:
    if config.errors:
        raise ConfigError(config.errors[0])
    settings, is_engine = dict(config.settings), hasattr(given, "unit")
    settings["aggregator_hostname"] = where(config)
    if is_engine:
        settings["uod"] = _units(config, said)
    else:
        settings = {name: value for name, value in settings.items() if name not in OF_ENGINES}
    overruled = {other for option, other in OVERRULES.items() if option in said}
    types = {action.dest: action.type for action in parser._actions}
    for option in settings.keys() & types.keys() - said.keys() - overruled:
        value, convert = settings[option], types[option]
        setattr(given, option, convert(value) if callable(convert) else value)
        given.places[option] = config.places.get(option, str(config.path))


def where(config: Config) -> str:
    """Return the aggregator's host, followed by its path there."""
    host = config.settings.get("aggregator_hostname", "127.0.0.1")
    return f"{host}{config.settings.get('aggregator_path', '')}"


def _units(config: Config, said: dict[str, Any]) -> list[str]:
    name, uods = said.get("unit"), config.uods
    if "uod" in said:
        if name is not None:
            raise ConfigError("argument --unit: not allowed with argument -uod/--uod")
        return []  # the command line's UODs are used instead
    if not uods:
        raise ConfigError(
            f"{config.path}: it has no units: add a table [{UNITS}.NAME] with the key uod"
        )
    if name is None:
        return list(uods.values())
    if name not in uods:
        raise ConfigError(f"argument --unit: {name!r} is not one of {', '.join(map(repr, uods))}")
    return [uods[name]]
