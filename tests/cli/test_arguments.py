"""What the command line accepts and refuses."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest
import trio

from tests.helpers.command import COMMAND, ran, running
from trio_runner import DurableOutbox
from trio_runner import _cli as cli
from trio_runner._cli import main
from trio_runner._cli._network import split_where


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["demo", "simulated"]),
        (["demo"], ["--seed"]),
        (["simulated"], ["--aggregator_hostname", "--no-secure", "--ca-file", "-ahn", "9800"]),
    ],
)
def test_the_help_tells_the_commands_and_options(
    arguments: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` goes to stdout, with exit code 0."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert [text for text in told if text not in out] == []


def test_without_a_command_the_help_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr and with exit code 2, since a script that lacks its arguments has failed."""
    with pytest.raises(SystemExit):
        main(["--help"])
    help_ = capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([])
    assert (ended.value.code, *capsys.readouterr()) == (2, "", help_)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--"], "trio-runner: error: the following arguments are required: COMMAND"),
        (["demonstrate"], "trio-runner: error: argument COMMAND: invalid choice: 'demonstrate'"),
        (["demo", "--fast"], "trio-runner demo: error: unrecognized arguments: --fast"),
        (["demo", "--seed", "x"], "trio-runner demo: error: argument --seed: invalid int value"),
        (["simulated", "-ap", "0"], "'0' is not a port from 1 to 65535"),
        (["simulated", "-ap", "http"], "'http' is not a port from 1 to 65535"),
        (["simulated", "-ahn", "http://a"], "'http://a' is not a host name: give -ahn a (see"),
        (
            ["simulated", "-ahn", "https://a:9/b/"],
            "is not a host name: give -ahn a/b -ap 9 -s (see",
        ),
        (["simulated", "-ahn", "a:9800"], "'a:9800' is not a host name: give -ahn a -ap 9800 (see"),
        (["simulated", "-ahn", "[::1]:9800"], "is not a host name: give -ahn ::1 -ap 9800 (see"),
        (
            ["simulated", "-ahn", "a:b"],
            "'a:b' is not a host name: give a name or an IP address alone",
        ),
        (["simulated", "--name", " "], "argument --name: a unit needs a name"),
        (["simulated", "--outbox-max", "64X"], "argument --outbox-max: '64X' is not a size"),
        (["simulated", "--ca-file", "x"], "argument --ca-file: it needs --secure"),
        (["simulated", "-s", "--ca-file", "no/such"], "cannot read no/such: No such file"),
        (["simulated", "-s", "--ca-file", ""], "argument --ca-file: a file needs a name"),
        (["simulated", "-s", "--ca-file", "/dev/null"], "/dev/null is not a regular file"),
        (["simulated", "--client-cert", "x"], "argument --client-cert: it needs --secure"),
        (
            ["simulated", "-s", "--client-key", "x"],
            "argument --client-key: it needs a client certificate",
        ),
        (["simulated", "--proxy", ""], "argument --proxy: it is not the URL of a proxy"),
        (["simulated", "--proxy", "socks5://a:1"], "'socks5' proxies are not supported"),
        (["simulated", "--proxy", "http://a:1", "--no-proxy"], "not allowed with argument --proxy"),
        (["simulated", "-ahn", "/pectus"], "'/pectus' is not a host name"),
    ],
)
def test_wrong_arguments_give_one_line_and_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr says what is wrong and where help is; the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert err.endswith("--help)\n")


async def test_the_exit_code_tells_whether_the_arguments_were_understood() -> None:
    """The process exits with 0 for `--help`, and with 2 for arguments that make no sense."""
    command = await ran("--help")
    assert (command.code, command.err) == (0, "")
    command = await ran("simulated", "-ap", "0")
    assert (command.code, command.out, command.err.count("\n")) == (2, "", 1)


async def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """A readable CA file without a certificate is told in one line, with exit code 2."""
    file = tmp_path / "ca.pem"
    file.write_text("nothing\n")
    command = await ran("simulated", "--secure", "--ca-file", str(file))
    assert command.code == 2
    assert command.err.startswith("trio-runner simulated: error: argument --ca-file: there are no")
    assert command.err.count("\n") == 1


async def test_arguments_are_read_before_the_heavy_modules_are_loaded() -> None:
    """`--help` loads neither rich nor the simulation."""
    script = (
        "import sys, trio_runner._cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {'rich', 'trio_runner.simulation'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    await trio.run_process([sys.executable, "-c", script], capture_stdout=True)


async def test_a_reader_that_has_gone_causes_no_traceback() -> None:
    """Help that goes into a closed pipe is simply lost."""
    script = f"{' '.join(COMMAND)} --help | true"
    result = await trio.run_process(["bash", "-c", script], capture_stderr=True)
    assert result.stderr == b""


@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 141), (errno.EINVAL, 141)])
def test_a_closed_pipe_is_recognized_by_either_error(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows says EINVAL when the reader has gone; the exit code is that of a closed pipe too."""
    with (tmp_path / "out").open("w") as file:
        out = _Refusing(file, number)
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["outbox", "discard", str(_empty_outbox(tmp_path))]) == code


def test_an_invalid_argument_elsewhere_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EINVAL while stdout is well does not come from a closed pipe, and must be seen."""

    def refuse(_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(cli, "_run", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        main(["demo"])


class _Refusing:
    """A stdout into which nothing can be written."""

    def __init__(self, file: TextIO, number: int) -> None:
        self._number = number
        self.fileno = file.fileno

    def write(self, _: str) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


def _empty_outbox(folder: Path) -> Path:
    path = folder / "outbox"
    DurableOutbox(path).close()
    return path


@pytest.mark.parametrize(
    ("where", "host", "path"),
    [
        ("lab.example", "lab.example", ""),
        ("lab.example/", "lab.example", ""),
        ("lab.example/pectus/", "lab.example", "/pectus"),
        ("::1/a/b", "::1", "/a/b"),
        ("lab.example/größe%20a", "lab.example", "/gr%C3%B6%C3%9Fe%20a"),
        ("lab.example/a?b#c", "lab.example", "/a%3Fb%23c"),
    ],
)
def test_a_host_may_have_a_path(where: str, host: str, path: str) -> None:
    """A proxy may have the aggregator under a path, which goes over the wire as in a URL."""
    assert split_where(where) == (host, path)


async def test_an_unusable_proxy_of_the_environment_is_told() -> None:
    """It is told before anything runs, without its password."""
    command = await ran("simulated", environment={"ALL_PROXY": "socks5://me:secret@a:1"})
    assert (command.code, command.out, command.err.count("\n")) == (2, "", 1)
    assert "error: the proxy in the environment: 'socks5" in command.err
    assert "secret" not in command.err
    async with running(
        "simulated", "--no-proxy", environment={"ALL_PROXY": "socks5://a:1"}
    ) as running_command:
        await running_command.until("Registering for engine id at http://127.0.0.1:9800\n")
        running_command.send(signal.SIGTERM)


def test_only_the_command_sets_the_garbage_collector() -> None:
    """Importing the package keeps Python's thresholds; the command sets its own."""
    code = """
import gc
before = gc.get_threshold()
import trio_runner
assert gc.get_threshold() == before
from trio_runner._cli import main
try:
    main(["--help"])
finally:
    assert gc.get_threshold() == (100_000, 50, 1_000)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
