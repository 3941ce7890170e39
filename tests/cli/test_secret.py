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


def test_arguments_take_precedence_over_the_environment(file: Path) -> None:
    """An argument, a file, a variable and a credential of systemd follow in this order."""
    credential = {"CREDENTIALS_DIRECTORY": str(file.parent)}
    everything = credential | {"TRIO_RUNNER_SECRET": "of the variable"}
    assert find_secret("given", None, everything) == "given"
    assert find_secret("", str(file), everything | credential) == "of the file"
    assert find_secret("", None, everything) == "of the variable"
    assert find_secret("", None, credential | {"TRIO_RUNNER_SECRET": ""}) == "of the file"
    assert find_secret("", None, {}) == ""


def test_a_service_without_this_credential_has_no_secret(tmp_path: Path) -> None:
    """The service may have other credentials."""
    assert find_secret("", None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b" \n", "there is no secret in"),
        (b"a\nb\n", "has more in it than a secret"),
        (b"a" * 5000, "has more in it than a secret"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (None, "cannot read"),
    ],
)
def test_a_file_without_a_secret_is_refused(content: bytes | None, told: str, file: Path) -> None:
    """A file that is empty, missing or something else holds no secret."""
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SecretUnusable, match=f"argument --secret-file: .*{told}"):
        find_secret("", str(file), {})
    if content is not None:
        with pytest.raises(SecretUnusable, match="environment CREDENTIALS_DIRECTORY: "):
            find_secret("", None, {"CREDENTIALS_DIRECTORY": str(file.parent)})


async def test_the_simulated_engine_registers_with_the_secret_of_a_file(file: Path) -> None:
    """One from the environment works too; nothing warns, and the log does not contain it."""
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


async def test_a_secret_on_the_command_line_causes_a_warning() -> None:
    """It works, and the log says what to do instead."""
    async with (
        serving(Aggregator(secret=GIVEN)) as port,
        running("simulated", "-ap", str(port), "-secret", GIVEN) as command,
    ):
        await command.until("Started -> Connected")
        command.send(signal.SIGTERM)
    assert command.err.count("The secret is on the command line") == 1
    assert GIVEN not in command.err


async def test_an_unusable_secret_gives_one_line_and_exit_code_2(file: Path) -> None:
    """There are two secrets, or the file does not exist."""
    for arguments, told in [
        ((str(file), "-secret", "x"), "not allowed with argument -secret"),
        ((str(file.parent / "no"),), f"cannot read {file.parent / 'no'}: No such file"),
    ]:
        command = await ran("simulated", "--secret-file", *arguments)
        assert (command.code, command.out, command.err.count("\n")) == (2, "", 1)
        assert f"error: argument --secret-file: {told}" in command.err
