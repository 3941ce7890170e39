"""`trio-runner engine` as a process, and its arguments."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.command import Command, ran, running
from trio_runner.bridge import Arguments, parse

from .units import DEMO_UOD

pytestmark = pytest.mark.timeout(120)

NOBODY = "-ap", "9"
"""A port on which nobody listens."""


LONG = (
    "--aggregator_hostname host --aggregator_port 443 --secure --uod a.py"
    " --sentry_event_level ERROR --secret x --ignore_version_error True"
)


def uod_named(folder: Path, name: str) -> str:
    """Return the path of a UOD file like the demo unit's, with another name of the unit."""
    path = folder / f"{name}.py"
    path.write_text(DEMO_UOD.read_text().replace("DemoUod", name))
    return str(path)


def wrong_uod(folder: Path) -> str:
    """Return the path of a UOD file that cannot be used."""
    path = folder / "wrong.py"
    path.write_text("def create():\n    raise ValueError('this definition is wrong')\n")
    return str(path)


def without_hardware(folder: Path) -> str:
    """Return the path of a UOD file whose hardware cannot be connected."""
    path = folder / "mute.py"
    path.write_text(
        DEMO_UOD.read_text().replace("DemoUod", "Mute")
        + "\n    def connect(self):\n        raise OSError('nobody answers')\n"
    )
    return str(path)


def test_the_defaults_are_those_of_the_package() -> None:
    """Without arguments: the demo unit at 127.0.0.1, the engine started when first connected."""
    assert parse([], "engine") == Arguments(
        hostname="127.0.0.1",
        port=None,
        secure=False,
        uods=[str(DEMO_UOD)],
        validate=False,
        show_register_details=False,
        sentry_event_level="WARNING",
        secret="",
        ignore_version_error=False,
        outbox=None,
        ca_file=None,
        start_at_once=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "-ahn host -ap 443 -s -uod a.py -sev ERROR -secret x -ignore True",
        LONG,
        "--aggregator_h host --aggregator_p 443 --secu --uo a.py --sen ERROR --secret=x --ig 1",
    ],
)
def test_the_packages_spellings_are_taken(line: str) -> None:
    """Short, long and abbreviated."""
    given = parse(line.split(), "engine")
    assert (given.hostname, given.port, given.secure) == ("host", 443, True)
    assert (given.uods, given.sentry_event_level) == (["a.py"], "ERROR")
    assert (given.secret, given.ignore_version_error) == ("x", True)
    assert parse(["--no-secure"], "engine").secure is False


def test_several_uods_are_several_units() -> None:
    """Each `--uod` is one; the default is not among them."""
    assert parse(["-uod", "a.py", "--uod", "b.py"], "engine").uods == ["a.py", "b.py"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-ap http", "'http' is no port from 1 to 65535"),
        ("-ignore perhaps", "say True or False"),
        ("-validate -rd", "not allowed with argument"),
        ("--ca-file x", "it is of use with --secure only"),
        ("-s --ca-file no/such", "cannot read no/such: No such file"),
        ("--start-engine never", "invalid choice: 'never'"),
    ],
)
def test_wrong_arguments_are_told(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parse(line.split(), "trio-runner engine")
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


async def test_validate_and_register_details_are_the_packages_own(tmp_path: Path) -> None:
    """`-validate` runs the UOD's examples; a UOD that is wrong gives exit code 1."""
    validated = await ran("engine", "-validate", "-uod", str(DEMO_UOD))
    assert validated.code == 0
    assert "Validation complete. Exiting." in validated.err
    wrong = await ran("engine", "-validate", "-uod", wrong_uod(tmp_path))
    assert wrong.code == 1
    assert "this definition is wrong" in wrong.err
    details = await ran("engine", "-rd")
    assert "Engine started in register details mode" in details.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    """Without an aggregator the engine runs if told to; a signal stops it, exit code 0."""
    async with running("engine", *NOBODY, "--start-engine", "at-once") as command:
        await command.until("Starting engine at once")
        await command.until("Started -> Failed")
        command.send(number)
    assert command.code == 0
    assert "Registering for engine id" in command.err
    in_order = ["Engine shutting down", "Stopped -> ShutdownComplete", "Engine stopped"]
    places = [command.err.index(text) for text in in_order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (wrong_uod, "Failed to create uod instance"),
        (without_hardware, "its hardware cannot be used"),
    ],
)
async def test_a_unit_that_cannot_run_is_told(make: object, told: str, tmp_path: Path) -> None:
    """Alone, with exit code 1."""
    assert callable(make)
    command = await ran("engine", *NOBODY, "-uod", make(tmp_path))
    assert command.code == 1
    assert told in command.err
    assert "Start with -validate to see more" in command.err


async def test_failing_units_do_not_take_down_the_others(tmp_path: Path) -> None:
    """A wrong UOD, mute hardware and a name that is taken: the fourth unit runs, exit code 3."""
    good, folder = uod_named(tmp_path, "Good one"), tmp_path / "waiting"
    again = shutil.copy(good, tmp_path / "again.py")
    uods = [wrong_uod(tmp_path), without_hardware(tmp_path), good, str(again)]
    named = [text for uod in uods for text in ("--uod", uod)]
    async with running("engine", *NOBODY, *named, "--outbox", str(folder)) as command:
        await command.until("has failed", times=3)
        await command.until("[Good one]")
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 3
    assert "another one of this command is named 'Good one' too" in command.err
    assert [path.name for path in folder.glob("*.outbox")] == ["Good one.outbox"]
    assert _after_failures(command).count("Engine stopped") == 1


def _after_failures(command: Command) -> str:
    return command.err[command.err.rindex("has failed") :]
