"""`trio-runner engine` as a process, and its arguments."""

import shutil
import signal
import socket
import textwrap
from argparse import Namespace
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.helpers.command import Command, ran, running
from trio_runner import DurableOutbox
from trio_runner._cli._engine import run
from trio_runner._cli._network import add_options
from trio_runner.bridge import Arguments, parse
from trio_runner.protocol import SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

from .units import DEMO_UOD

pytestmark = pytest.mark.timeout(120)

NOBODY = "-ap", "9"
"""A port at which nobody listens."""

SALT = "salt-and-pepper"
"""The secret that the aggregator asks for."""

IGNORE = "-ignore", "True"
"""The version of the aggregator does not matter."""


LONG = (
    "--aggregator_hostname host --aggregator_port 443 --secure --uod a.py"
    " --sentry_event_level ERROR --secret x --ignore_version_error True"
)


def uod_named(folder: Path, name: str) -> str:
    """Return the path of a UOD file like that of the demo unit, with another name of the unit."""
    path = folder / f"{name}.py"
    path.write_text(DEMO_UOD.read_text().replace("DemoUod", name))
    return str(path)


def wrong_uod(folder: Path) -> str:
    """Return the path of a UOD file that cannot be used."""
    path = folder / "wrong.py"
    path.write_text("def create():\n    raise ValueError('this definition is wrong')\n")
    return str(path)


def without_driver(folder: Path) -> str:
    """Return the path of a UOD file that imports something that is not installed."""
    return written(folder, "import no_such_driver\n")


def unfinished(folder: Path) -> str:
    """Return the path of a UOD file that is not valid Python."""
    return written(folder, "def create():\n    return (\n")


def not_a_unit(folder: Path) -> str:
    """Return the path of a UOD file that forgets to return its unit."""
    return written(folder, "def create():\n    pass\n")


def written(folder: Path, source: str) -> str:
    path = folder / "wrong.py"
    path.write_text(source)
    return str(path)


def without_hardware(folder: Path) -> str:
    """Return the path of a UOD file whose hardware cannot be connected."""
    path = folder / "mute.py"
    path.write_text(
        DEMO_UOD.read_text().replace("DemoUod", "Mute")
        + "\n    def connect(self):\n        raise OSError('nobody answers')\n"
    )
    return str(path)


def unit_with(folder: Path, name: str, hardware: str, *, builder: str = "") -> str:
    """Return the path of a UOD file like that of the demo unit, with these methods of its hardware.

    `builder` is inserted into the chain that builds the definition.
    """
    path = folder / f"{name}.py"
    text = DEMO_UOD.read_text().replace("DemoUod", name)
    text = text.replace(".with_location(", f"{builder}.with_location(")
    imports = "import threading\nfrom pathlib import Path\n"
    imports += "from openpectus.engine.hardware import HardwareLayerException\n"
    imports += "from openpectus.lang.exec.tags import Tag\n"
    path.write_text(imports + text + textwrap.indent("\n" + hardware, "    "))
    return str(path)


def when_told(folder: Path, act: str) -> str:
    """Return a method of the hardware that acts as soon as the file `now` exists.

    The hardware has been read once by then, since a unit that was never read has no last values to
    go on with.
    """
    return f"""
has_been_read = False

def read_batch(self, registers):
    if self.has_been_read and Path({str(folder / "now")!r}).exists():
        {act}
    self.has_been_read = True
    return super().read_batch(registers)
"""


HANG = "(print('hangs here', flush=True), threading.Event().wait())"

HANGING = {
    "connect": f"def connect(self):\n    {HANG}",
    "disconnect": f"def disconnect(self):\n    {HANG}",
    "read": f"def read_batch(self, registers):\n    {HANG}",
    "thread": f"""
def connect(self):
    super().connect()
    threading.Thread(target=lambda: {HANG}, daemon=False).start()
""",
}
"""Methods of hardware that hang. An interpreter waits for a thread that hangs so."""

HANGING_TAG = f"type('Hangs', (Tag,), {{'on_engine_configured': lambda self: {HANG}}})('Hangs')"
"""A tag that hangs when its engine starts."""


def test_the_defaults_are_those_of_the_package() -> None:
    """Without arguments it is the demo unit at 127.0.0.1, started when it is first connected."""
    given = parse([], "engine", add_options)
    assert evolve(given, network=Namespace()) == Arguments(
        hostname="127.0.0.1",
        port=None,
        network=Namespace(),
        uods=[str(DEMO_UOD)],
        validate=False,
        show_register_details=False,
        sentry_event_level="WARNING",
        secret="",
        secret_file=None,
        ignore_version_error=False,
        outbox=None,
        outbox_max=None,
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
    """They may be short, long or abbreviated."""
    given = parse(line.split(), "engine", add_options)
    assert (given.hostname, given.port, given.network.secure) == ("host", 443, True)
    assert (given.uods, given.sentry_event_level) == (["a.py"], "ERROR")
    assert (given.secret, given.ignore_version_error) == ("x", True)
    assert parse(["--no-secure"], "engine", add_options).network.secure is False


def test_each_uod_makes_a_unit() -> None:
    """The default unit is not among them."""
    assert parse(["-uod", "a.py", "--uod", "b.py"], "engine", add_options).uods == ["a.py", "b.py"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-ap http", "'http' is not a port from 1 to 65535"),
        ("-ignore perhaps", "it must be True or False"),
        ("-validate -rd", "not allowed with argument"),
        ("--proxy http://a:1 --no-proxy", "argument --no-proxy: not allowed with argument --proxy"),
        ("--start-engine never", "invalid choice: 'never'"),
        ("--outbox=", "a file needs a name"),
    ],
)
def test_wrong_arguments_are_told(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        parse(line.split(), "trio-runner engine", add_options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--ca-file x", "argument --ca-file: it needs --secure"),
        ("-s --ca-file no/such", "argument --ca-file: cannot read no/such: No such file"),
        ("-s --client-key x", "argument --client-key: it needs a client certificate"),
        (
            "--proxy socks5://a",
            "argument --proxy: 'socks5' proxies are not supported",
        ),
        (
            "-ahn a:9",
            "-ahn/--aggregator_hostname: 'a:9' is not a host name: give -ahn a -ap 9",
        ),
    ],
)
def test_a_wrong_way_to_the_aggregator_is_told(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and no hardware is connected before."""
    assert run(line.split()) == 2
    assert told in capsys.readouterr().err


async def test_validation_and_details_of_the_registration_are_the_packages_own(
    tmp_path: Path,
) -> None:
    """`-validate` runs the UOD's examples; a wrong UOD gives exit code 1."""
    validated = await ran("engine", "-validate", "-uod", str(DEMO_UOD))
    assert validated.code == 0
    assert "Validation complete. Exiting." in validated.err
    wrong = await ran("engine", "-validate", "-uod", wrong_uod(tmp_path))
    assert wrong.code == 1
    assert "this definition is wrong" in wrong.err
    details = await ran("engine", "-rd")
    assert "Engine started in register details mode" in details.err


async def test_the_secret_can_come_from_a_file(tmp_path: Path) -> None:
    """The engine registers with it; a file that cannot be read is told, with exit code 2."""
    file, aggregator = tmp_path / "secret", Aggregator(secret=SALT)
    missing = await ran("engine", "--secret-file", str(file))
    assert missing.code == 2
    assert f"error: argument --secret-file: cannot read {file}: No such file" in missing.err
    file.write_text(f"{SALT}\n")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        for arguments in (("--secret-file", str(file)), ("-secret", SALT)):
            async with running("engine", "-ap", str(port), *IGNORE, *arguments) as command:
                await command.until("Started -> Connected")
                command.send(signal.SIGTERM)
            assert command.code == 0
            assert ("The secret is on the command line" in command.err) == (SALT in arguments)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_command_in_order(number: signal.Signals) -> None:
    """Without an aggregator the engine runs if told to; a signal stops it with exit code 0."""
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
        (wrong_uod, "Failed to create uod instance: line 2: ValueError: this definition is wrong"),
        (without_hardware, "its hardware cannot be used: OSError: nobody answers"),
        (without_driver, "line 1: ModuleNotFoundError: No module named 'no_such_driver'"),
        (unfinished, "line 2: SyntaxError: "),
        (not_a_unit, "its create() returns a NoneType, not a unit operation definition"),
    ],
)
async def test_a_unit_that_cannot_run_is_told(make: object, told: str, tmp_path: Path) -> None:
    """It fails alone, and its cause and the line of the file are told, with exit code 1."""
    assert callable(make)
    command = await ran("engine", *NOBODY, "-uod", make(tmp_path))
    assert command.code == 1
    assert [line for line in command.err.splitlines() if "has failed" in line and told in line]
    assert "Traceback" not in command.err


async def test_failing_units_do_not_take_down_the_others(tmp_path: Path) -> None:
    """A wrong UOD, mute hardware and a taken name fail; the fourth unit runs, with exit code 3."""
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
    assert "another unit of this command is also named 'Good one'" in command.err
    assert [path.name for path in folder.glob("*.outbox")] == ["Good one.outbox"]
    assert _after_failures(command).count("Engine stopped") == 1


async def test_outboxes_are_on_disk_by_default(tmp_path: Path) -> None:
    """They are in the user's state folder, a file for each unit; a wrong size is told."""
    wrong = await ran("engine", "--outbox-max", "64X")
    assert wrong.code == 2
    assert "error: argument --outbox-max: '64X' is not a size" in wrong.err
    uods = [text for name in ("One", "Two") for text in ("-uod", uod_named(tmp_path, name))]
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    async with running("engine", *NOBODY, *uods, environment=state) as command:
        await command.until("Started -> Failed", times=2)
        command.send(signal.SIGTERM)
    assert command.code == 0
    folder = tmp_path / "state" / "trio-runner" / "engine"
    assert sorted(path.name for path in folder.glob("*.outbox")) == ["One.outbox", "Two.outbox"]
    assert f"The outbox is {folder / 'One.outbox'}: nothing waits in it" in command.err


async def test_a_uod_that_ends_the_process_ends_its_unit_alone(tmp_path: Path) -> None:
    """`sys.exit()` in a UOD is a failure of its unit, and the other unit runs."""
    path = tmp_path / "exits.py"
    path.write_text("import sys\nsys.exit('no licence')\n")
    good = uod_named(tmp_path, "Good one")
    async with running("engine", *NOBODY, "-uod", str(path), "-uod", good) as command:
        await command.until("has failed: no licence")
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 3


async def test_units_fail_alone_while_they_run(tmp_path: Path) -> None:
    """Two drivers end the thread of their engine, one loses its equipment, and one unit is well.

    Lost equipment is no failure of the unit, since the package tries to find it again.
    """
    acts = {
        "Raises": "raise OSError('of a driver')",
        "Exits": "raise SystemExit('of a driver')",
        "Loses": "raise HardwareLayerException('no answer')",
        "Good": "pass",
    }
    uods = [unit_with(tmp_path, name, when_told(tmp_path, act)) for name, act in acts.items()]
    named = [text for uod in uods for text in ("-uod", uod)]
    async with running("engine", *NOBODY, *named, "--start-engine", "at-once") as command:
        await command.until("Starting engine at once", times=4)
        (tmp_path / "now").touch()
        await command.until("has failed: The engine's thread has ended", times=2)
        command.send(signal.SIGTERM)
    assert command.code == 3
    assert "The engine's thread has ended: OSError('of a driver')" in command.err
    assert "The engine's thread has ended: SystemExit('of a driver')" in command.err
    for name in ("Loses", "Good"):
        assert f"[{name}] " in command.err
    assert command.err.count("Stopped -> ShutdownComplete") == 4
    assert command.err.count("has failed") == 2


@pytest.mark.parametrize(
    ("where", "code"), [("connect", 0), ("disconnect", 1), ("read", 0), ("thread", 0), ("start", 0)]
)
async def test_a_driver_that_hangs_does_not_keep_the_command(
    tmp_path: Path, where: str, code: int
) -> None:
    """It ends within 15 s of a signal; the exit code tells if hardware was not disconnected."""
    if where == "start":
        uod = unit_with(tmp_path, "Hangs", "", builder=f".with_tag({HANGING_TAG})")
    else:
        uod = unit_with(tmp_path, "Hangs", HANGING[where])
    arguments = (*NOBODY, "-uod", uod, "--start-engine", "at-once")
    async with running("engine", *arguments) as command:
        await command.until("Starting engine" if where == "disconnect" else "hangs here")
        command.send(signal.SIGTERM)
        with trio.fail_after(15):
            await command.process.wait()
    assert command.code == code
    assert ("may still be connected" in command.err) == (code == 1)


async def test_an_outbox_that_cannot_be_closed_is_left_behind(tmp_path: Path) -> None:
    """This holds for each unit's own, so the others end in order; it is told."""
    hang = "import threading\nfrom trio_runner import DurableOutbox\n"
    hang += "DurableOutbox.close = lambda self: threading.Event().wait()\n"
    uod = Path(uod_named(tmp_path, "Good one"))
    uod.write_text(hang + uod.read_text())
    arguments = (*NOBODY, "-uod", str(uod), "--outbox", str(tmp_path / "it.outbox"))
    async with running("engine", *arguments) as command:
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
        with trio.fail_after(10):
            await command.process.wait()
    assert command.code == 0
    assert "The outbox did not close within 4 s: ending without it" in command.err
    assert "Engine stopped" in command.err


@pytest.mark.parametrize("where", ["open", "claim"])
async def test_a_units_disk_that_hangs_stops_neither_the_others_nor_the_end(
    tmp_path: Path, where: str
) -> None:
    """It hangs at the opening, or for the runner. The other unit dials, and a signal ends both."""
    hang = f"""
import threading
from trio_runner import EngineRunner

def hang(*_, **__):
    print("hangs here", flush=True)
    threading.Event().wait()

original = EngineRunner._recover

def recover(self, resume_run):
    if self._builder.create_register_engine_msg().uod_name == "Bad disk":
        hang()
    original(self, resume_run)

if {where!r} == "claim":
    EngineRunner._recover = recover
else:
    from trio_runner._cli import _keeping

    claimed = _keeping.Keeping._claimed

    def open_it(self, path, builder):
        return (hang if "Bad disk" in path.name else claimed.__get__(self))(path, builder)

    _keeping.Keeping._claimed = open_it
"""
    bad = Path(uod_named(tmp_path, "Bad disk"))
    bad.write_text(hang + bad.read_text())
    uods = ["-uod", str(bad), "-uod", uod_named(tmp_path, "Good one")]
    arguments = (*NOBODY, *uods, "--outbox", str(tmp_path / "outboxes"))
    async with running("engine", *arguments) as command:
        await command.until("hangs here")
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
        with trio.fail_after(10):
            await command.process.wait()
    assert command.code == 0
    assert "Engine stopped" in command.err


async def test_a_thread_that_hangs_at_the_end_is_left_behind(tmp_path: Path) -> None:
    """The process ends even if Trio cannot."""
    hang = "import threading\nfrom trio_runner import EngineRunner\n"
    hang += "EngineRunner.shutdown = lambda self: threading.Event().wait()\n"
    uod = Path(uod_named(tmp_path, "Good one"))
    uod.write_text(hang + uod.read_text())
    arguments = (*NOBODY, "-uod", str(uod), "--outbox", str(tmp_path / "it.outbox"))
    async with running("engine", *arguments) as command:
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
        with trio.fail_after(15):
            await command.process.wait()
    assert command.code == 1
    assert "something hangs; ending without it after 14 s" in command.err


async def test_the_run_of_an_engine_that_died_is_ended(tmp_path: Path) -> None:
    """After the driver's error the run ends at the aggregator too, flushed before the exit."""
    name = "Dies"
    uod = unit_with(tmp_path, name, when_told(tmp_path, "raise OSError('of a driver')"))
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        async with running("engine", "-ap", str(port), "-uod", uod, *IGNORE) as command:
            await command.until("Starting engine on first steady-state")
            engine_id = aggregator.engine().engine_id
            answer = await aggregator.call(engine_id, am.ExecuteControlCommandMsg(name="Start"))
            assert isinstance(answer, SuccessMessage)
            await aggregator.wait_until(lambda: aggregator.messages(em.RunStartedMsg))
            (tmp_path / "now").touch()
        nursery.cancel_scope.cancel()
    assert command.code == 1
    assert "Dies.py has failed: The engine's thread has ended: OSError('of" in command.err
    (started,) = aggregator.messages(em.RunStartedMsg)
    assert [m.run_id for m in aggregator.messages(em.RunStoppedMsg)] == [started.run_id]


RESTORE = """
from openpectus.engine.engine import Engine
from openpectus.lang.exec.tags import SystemTagName

make = Engine.__init__

def make_restored(self, *arguments, **named):
    make(self, *arguments, **named)
    self._runstate_started = True
    self._runstate_started_time = 1.7e9
    self._system_tags[SystemTagName.RUN_ID].set_value("R", 1.7e9)

Engine.__init__ = make_restored
"""
"""Lets a UOD file play an engine that can restore its run, which the package's cannot yet."""


@pytest.mark.parametrize("restored", [False, True])
async def test_a_run_that_the_engine_has_restored_goes_on(tmp_path: Path, restored: bool) -> None:
    """A restored run is not ended. Otherwise it is ended before anything else is sampled."""
    uod, file, aggregator = Path(uod_named(tmp_path, "Unit")), tmp_path / "outbox", Aggregator()
    if restored:
        uod.write_text(RESTORE + uod.read_text())
    with DurableOutbox(file) as outbox:  # of a process that died
        outbox.claim(f"{socket.gethostname()}_Unit")
        outbox.put(em.RunStartedMsg(run_id="R", started_tick=1.7e9))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        where = ("-ap", str(port), "-uod", str(uod), "--outbox", str(file))
        async with running("engine", *where, *IGNORE) as command:
            await command.until("Starting engine on first steady-state")
            await aggregator.wait_until(lambda: len(aggregator.messages(em.TagsUpdatedMsg)) > 2)
            assert len(aggregator.messages(em.RunStoppedMsg)) == (not restored)
            assert {s.run_id for s in aggregator.messages(em.TagsUpdatedMsg)[-2:]} == {
                "R" if restored else None
            }
            command.send(signal.SIGTERM)
        nursery.cancel_scope.cancel()
    assert command.code == 0
    assert [m.run_id for m in aggregator.messages(em.RunStartedMsg)] == ["R"]
    assert [m.run_id for m in aggregator.messages(em.RunStoppedMsg)] == ["R"]


async def test_roles_that_the_aggregator_does_not_know_cause_a_warning(tmp_path: Path) -> None:
    """The unit is for certain roles, but without authentication nobody would see it."""
    roles = ".with_required_roles({'Operator'})"
    uods = [
        unit_with(tmp_path, "Of roles", "", builder=roles),
        unit_with(tmp_path, "Of all", ""),
    ]
    named = [text for uod in uods for text in ("-uod", uod)]
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        async with running("engine", "-ap", str(port), *named, *IGNORE) as command:
            await command.until("Starting engine on first steady-state", times=2)
            await command.until("will not be visible on its page")
            command.send(signal.SIGINT)
        nursery.cancel_scope.cancel()
    assert command.code == 0
    assert "Of roles asks for roles" in command.err
    assert "Of all asks for roles" not in command.err


def _after_failures(command: Command) -> str:
    return command.err[command.err.rindex("has failed") :]
