"""Where the aggregator's secret comes from."""

import signal
from pathlib import Path

import pytest

from tests.helpers.command import ran, running
from trio_runner._cli._secret import SecretUnusable, find_secret
from trio_runner.simulation import Aggregator

from .test_simulated import serving

OF_FILE, GIVEN = "of the file", "s3cr3t"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with a secret, as an editor of Windows writes it."""
    path = tmp_path / "secret"
    path.write_bytes(b"\xef\xbb\xbfof the file\r\n")
    return path


def test_arguments_go_before_the_environment(file: Path) -> None:
    """An argument, a file, a variable, a credential of systemd; else there is none."""
    credential = {"CREDENTIALS_DIRECTORY": str(file.parent)}
    everything = credential | {"TRIO_RUNNER_SECRET": "of the variable"}
    assert find_secret("given", None, everything) == "given"
    assert find_secret("", str(file), everything | credential) == "of the file"
    assert find_secret("", None, everything) == "of the variable"
    assert find_secret("", None, credential | {"TRIO_RUNNER_SECRET": ""}) == "of the file"
    assert find_secret("", None, {}) == ""


def test_service_without_this_credential_has_none(tmp_path: Path) -> None:
    """Its credentials may be others."""
    assert find_secret("", None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b" \n", "there is no secret in"),
        (b"a\nb\n", "there is more than a secret in"),
        (b"a" * 5000, "there is more than a secret in"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (None, "cannot read"),
    ],
)
def test_file_without_a_secret_is_refused(content: bytes | None, told: str, file: Path) -> None:
    """What is empty, not there or something else is no secret."""
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretUnusable, match=f"argument --secret-file: .*{told}"):
        find_secret("", str(file), {})
    if content is not None:
        with pytest.raises(SecretUnusable, match="environment CREDENTIALS_DIRECTORY: "):
            find_secret("", None, {"CREDENTIALS_DIRECTORY": str(file.parent)})


async def test_simulated_engine_registers_with_the_secret_of_a_file(file: Path) -> None:
    """Or of the environment; nothing is warned of, and the log does not hold it."""
    for arguments, environment in [
        (("--secret-file", str(file)), {}),
        ((), {"TRIO_RUNNER_SECRET": OF_FILE}),
        ((), {"CREDENTIALS_DIRECTORY": str(file.parent)}),
    ]:
        async with (
            serving(Aggregator(secret=OF_FILE)) as port,
            running("simulated", "-ap", str(port), *arguments, environment=environment) as command,
        ):
            await command.until("Started -> Connected")
            command.send(signal.SIGTERM)
        assert command.code == 0
        assert "WARNING" not in command.err
        assert OF_FILE not in command.err + command.out


async def test_secret_on_the_command_line_is_warned_of() -> None:
    """It works, and the log says what to do instead."""
    async with (
        serving(Aggregator(secret=GIVEN)) as port,
        running("simulated", "-ap", str(port), "-secret", GIVEN) as command,
    ):
        await command.until("Started -> Connected")
        command.send(signal.SIGTERM)
    assert command.err.count("The secret is on the command line") == 1
    assert GIVEN not in command.err


async def test_unusable_secret_is_one_line_and_code_2(file: Path) -> None:
    """Two secrets, and a file that is not there."""
    for arguments, told in [
        ((str(file), "-secret", "x"), "not allowed with argument -secret"),
        ((str(file.parent / "no"),), f"cannot read {file.parent / 'no'}: No such file"),
    ]:
        command = await ran("simulated", "--secret-file", *arguments)
        assert (command.code, command.out, command.err.count("\n")) == (2, "", 1)
        assert f"error: argument --secret-file: {told}" in command.err
