"""Settings in a file: what is accepted, and how mistakes are told."""

import signal
from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path

import pytest

from tests.helpers.command import ran, running
from trio_runner._cli import _status_arguments, main
from trio_runner._cli._config import KEYS, ConfigError, line_of, load, parse
from trio_runner._cli._network import add_options
from trio_runner.simulation import Aggregator

from .test_simulated import SALT, serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "pectus.toml"

WHOLE = """\
log_format = "json"
secret_file = "keys/secret"

[aggregator]
host = "lab.example"
port = 9443
secure = true
path = "pectus/"
proxy = "http://proxy.example:3128"
ca_file = "/etc/ca.pem"
client_cert = "engine.pem"
client_key = "engine.key"

[outbox]
folder = "waiting"
max = "128M"

[status]
address = 9900
alarm_after = "1h"

[units."Skid 1"]
uod = "skid_1.py"
[units.skid-2]
uod = "/opt/skid_2.py"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file of settings that does not exist yet."""
    return tmp_path / "pectus.toml"


def engine_parser() -> ArgumentParser:
    """Return a parser with options like those of an engine."""
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_argument
    add("-ahn", "--aggregator_hostname", default="127.0.0.1")
    add("-ap", "--aggregator_port")
    add("-s", "--secure", action=BooleanOptionalAction)
    add("-secret", "--secret", default="")
    add("--log-format", default="text")
    for option in ("--secret-file", "--outbox", "--outbox-max", "--config", "--unit"):
        add(option)
    add("-uod", "--uod", action="append")
    add_options(parser)
    _status_arguments.add_options(parser)
    return parser


def test_the_file_gives_what_the_command_line_does_not(file: Path) -> None:
    """All of it is used, with paths relative to the file."""
    file.write_text(WHOLE)
    given, folder = parse(engine_parser(), ["--config", str(file)]), file.parent
    assert (given.log_format, given.secret_file) == ("json", str(folder / "keys/secret"))
    assert (given.aggregator_hostname, given.aggregator_port) == ("lab.example/pectus", "9443")
    assert (given.secure, given.proxy) == (True, "http://proxy.example:3128")
    assert (given.ca_file, given.client_cert) == ("/etc/ca.pem", str(folder / "engine.pem"))
    assert given.client_key == str(folder / "engine.key")
    assert (given.outbox, given.outbox_max) == (str(folder / "waiting"), "128M")
    assert (given.status, given.alarm_after) == (("127.0.0.1", 9900), 3600)
    assert given.uod == [str(folder / "skid_1.py"), "/opt/skid_2.py"]


def test_the_command_line_wins_over_the_file(file: Path) -> None:
    """It can also switch a setting off, and it wins over what cannot stand beside its own."""
    file.write_text(WHOLE)
    said = "-ahn other -ap 1 --no-secure --no-proxy -secret x --client-cert c.pem -uod a.py"
    given = parse(engine_parser(), ["--config", str(file), *said.split()])
    assert (given.aggregator_hostname, given.aggregator_port) == ("other", "1")
    assert (given.secure, given.proxy) == (False, False)
    assert (given.secret, given.secret_file) == ("x", None)
    assert (given.client_cert, given.client_key) == ("c.pem", None)
    assert given.uod == ["a.py"]
    assert given.log_format == "json", "it does not say that"
    given = parse(engine_parser(), ["--config", str(file), "--log-format", "text"])
    assert given.log_format == "text", "it says so, though that is the default"


def test_one_of_several_units_can_be_run(file: Path) -> None:
    """It is chosen by its name in the file. Another name, or a name without a file, is an error."""
    file.write_text(WHOLE)
    parser = engine_parser()
    assert parse(parser, ["--config", str(file), "--unit", "skid-2"]).uod == ["/opt/skid_2.py"]
    with pytest.raises(ConfigError, match="--unit: 'Skid' is not one of 'Skid 1', 'skid-2'"):
        parse(parser, ["--config", str(file), "--unit", "Skid"])
    with pytest.raises(ConfigError, match="--unit: it needs --config"):
        parse(parser, ["--unit", "Skid 1"])
    with pytest.raises(ConfigError, match="--unit: not allowed with argument -uod/--uod"):
        parse(parser, ["--config", str(file), "--unit", "skid-2", "-uod", "a.py"])
    file.write_text("")
    with pytest.raises(ConfigError, match=r"it has no units: add a table \[units.NAME\]"):
        parse(parser, ["--config", str(file)])


WRONG = [
    ("port = 9800", "line 1: port: there is no such key; did you mean aggregator.port?"),
    (
        "\n[aggregator]\nprot = 1",
        "line 3: aggregator.prot: there is no such key; did you mean",
    ),
    ("[agregator]\nport = 1", "line 1: agregator: there is no such key; did you mean aggregator?"),
    ("secret = 'x'", "line 1: secret: there is no such key; did you mean secret_file?"),
    ("# no\n[xyz]", "line 2: xyz: there is no such key"),
    ("outbox = 'here'", "line 1: outbox: it must be a table: [outbox]"),
    ("aggregator.port = 'http'", "line 1: aggregator.port: 'http' is not a port from 1 to 65535"),
    ("aggregator.port = true", "line 1: aggregator.port: True is not a port"),
    ("aggregator = {port = 0}", "line 1: aggregator.port: 0 is not a port"),
    (
        "[aggregator]\nhost = 'https://a:9'",
        "line 2: aggregator.host: 'https://a:9' is not a host name: give host = 'a', port = 9,",
    ),
    (
        "[aggregator]\nhost = 'a/b'",
        "line 2: aggregator.host: it must be the host alone: give the path as aggregator.path",
    ),
    (
        "[aggregator]\n\nsecure = 'yes'",
        "line 3: aggregator.secure: it must be true or false, not 'yes'",
    ),
    ("[aggregator]\nproxy = true", "line 2: aggregator.proxy: it must be a string"),
    ("[outbox]\nmax = '64X'", "line 2: outbox.max: '64X' is not a size"),
    ("[outbox]\nfolder = ''", 'line 2: outbox.folder: it must be a string such as "..."'),
    ("log_format = 'xml'", "line 1: log_format: 'xml' is not one of text, json"),
    ("[status]\naddress = 'a:b:c'", "line 2: status.address: 'a:b:c' is not a [HOST:]PORT"),
    ("[status]\nalarm_after = 0", "line 2: status.alarm_after: '0' is not a time"),
    ("[units.A]", "line 1: units.A.uod: it is missing: give the path of its UOD"),
    (
        "[units.A]\nudo = 'a'",
        "line 2: units.A.udo: there is no such key; did you mean units.NAME.uod?",
    ),
    ("[units]\nA = 'a.py'", "line 2: units.A: it must be a table: [units.A]"),
    ("[units.'A b']\nuod = 1", "line 2: units.A b.uod: it must be a string"),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_a_mistake_is_told_with_its_line_and_key(
    text: str, told: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told in one line, with exit code 2."""
    file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["simulated", "--config", str(file)])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert f"trio-runner simulated: error: {file}, {told}" in err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[aggregator\n", " is not valid TOML: Expected ']'"),
        (b"a = 1\na = 2\n", " is not valid TOML: Cannot overwrite a value (at line 2, "),
        (b"\xff", " is not UTF-8 text"),
        (None, ": No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    content: bytes | None, told: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told in one line, with exit code 2."""
    if content is not None:
        file.write_bytes(content)
    assert main(["config", "check", str(file)]) == 2
    err = capsys.readouterr().err
    assert (str(file) + told in err, err.count("\n")) == (True, 1)


def test_what_is_wrong_with_a_named_file_is_blamed_on_the_line_that_names_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Certificates, proxy and secret are each blamed on their line, when a command begins."""
    for text, told in (
        (
            "[aggregator]\nca_file = 'x'",
            "line 2: aggregator.ca_file: it needs --secure",
        ),
        (
            "[aggregator]\nproxy = 'socks5://a'",
            "line 2: aggregator.proxy: 'socks5' proxies are not",
        ),
        ("\nsecret_file = 'none'", f"line 2: secret_file: cannot read {file.parent / 'none'}"),
    ):
        file.write_text(text)
        with pytest.raises(SystemExit):
            main(["simulated", "--config", str(file)])
        assert f"error: {file}, {told}" in capsys.readouterr().err


def test_check_tells_every_mistake(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line for each mistake, and for what is not on this computer."""
    file.write_text("port = 1\nsecret_file = 'none'\n[units.A]\nuod = 'a.py'\n")
    assert main(["config", "check", str(file)]) == 2
    out, err = capsys.readouterr()
    lines = [
        line.removeprefix(f"trio-runner config check: error: {file}, ") for line in err.splitlines()
    ]
    assert out == ""
    assert lines == [
        "line 1: port: there is no such key; did you mean aggregator.port?",
        f"line 2: secret_file: cannot read {file.parent / 'none'}: No such file or directory",
        f"line 4: units.A.uod: there is no file {file.parent / 'a.py'}",
    ]


def test_the_example_is_correct_and_names_every_key(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is correct with its files beside it. Keys that are commented out may be left out."""
    text = EXAMPLE.read_text()
    for name in ("pectus.toml", "skid_1.py", "skid_2.py"):
        (file.parent / name).write_text(text)
    assert main(["config", "check", str(file)]) == 0
    told = "2 units (Skid 1, Skid 2), the aggregator at aggregator.example.\n"
    assert capsys.readouterr().out == f"{file} is valid: {told}"
    file.write_text("\n".join(line.removeprefix("# ") for line in text.splitlines()[3:-7]))
    config = load(str(file))
    assert config.errors == []
    assert set(config.settings) | {"uod"} == {key.option for key in KEYS.values()}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 1),
        (("b", "c"), 3),
        (("b", "d", "e"), 4),
        (("f g", "h"), 6),
        (("f g", "i", "j"), 7),
        (("f g", "none"), 5),
        (("none",), 1),
    ],
)
def test_the_line_of_a_key_is_found(keys: tuple[str, ...], line: int) -> None:
    """It is found in tables, dotted, quoted and inline, or else the table or the first line is."""
    text = 'a = 1\n[b]\n  "c" = 2  # = 3\nd.e = 4\n[ "f g" ]\nh = "="\ni = {j = 1}\n'
    assert line_of(text, keys) == line


async def test_the_simulated_engine_takes_only_the_way_to_the_aggregator(file: Path) -> None:
    """It ignores units, outboxes and the status; it has the port and the secret of the file."""
    (file.parent / "secret").write_text(f"{SALT}\n")
    aggregator = Aggregator(secret=SALT, version="0.2.0")
    async with serving(aggregator) as port:
        file.write_text(
            f"secret_file = 'secret'\nlog_format = 'json'\nignore_version_error = true\n"
            f"[aggregator]\nhost = '127.0.0.1'\nport = {port}\nproxy = false\n"
            "[outbox]\nfolder = 'waiting'\n[status]\naddress = 9801\n[units.A]\nuod = 'a.py'\n"
        )
        async with running("simulated", "--config", str(file), "--name", "Skid") as command:
            await command.until("Started -> Connected")
            command.send(signal.SIGTERM)
    assert command.code == 0
    assert command.err.startswith('{"time": ')
    assert aggregator.engine().registrations[0].message.uod_name == "Skid"
    assert not (file.parent / "waiting").exists()
    assert "9801" not in command.err


async def test_the_help_names_the_option_and_the_check() -> None:
    """The help tells of the option, and of the command that checks a file."""
    assert "--config FILE" in (await ran("simulated", "--help")).out
    assert "check" in (await ran("config", "--help")).out
    told = (await ran("config", "check", "--help")).out
    assert "Exit code: 0 if all is well" in " ".join(told.split())
