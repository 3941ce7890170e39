"""The real aggregator as a process, and its HTTP interface."""

import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
import trio

from tests.helpers.ports import free_port

T = TypeVar("T")
Json = dict[str, Any]

_START_S = 60.0  # measured: 3 s; a machine that is busy with a first import takes longer
_STOP_S = 20.0
_NOT_FOR_A_TEST = {"SENTRY_DSN", "ENABLE_AZURE_AUTHENTICATION"}


class RealAggregator:
    """The real `pectus-aggregator` with its own port, database and web-push keys.

    `start`, `stop` and `kill` block: call them in a thread where Trio runs.
    """

    def __init__(self, command: Path, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "aggregator.log"
        self.database = folder / "aggregator.sqlite3"
        keys = folder / "keys"
        keys.mkdir()
        self._command = [str(command), "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--database", str(self.database)]
        self._command += ["--webpush_keys_path", str(keys)]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its web page."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it with what its database contains, and return when it answers."""
        assert self._process is None, "it runs already"
        env = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_A_TEST}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_for_health(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as its service manager does: it closes its connections (1012) and saves."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """End it as a crash does: it closes no connection and saves nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def ensure_started(self) -> None:
        """Start it unless it runs."""
        if self._process is None:
            self.start()

    def log_text(self) -> str:
        """Return everything that it has logged."""
        return self.log.read_text(errors="replace")

    def _wait_for_health(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the aggregator ended by itself:\n{self.log_text()}")
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health", trust_env=False).is_success:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"the aggregator gave no answer in {_START_S} s:\n{self.log_text()}")


class Api:
    """What a person's browser asks and tells the aggregator about one unit."""

    def __init__(self, client: httpx2.AsyncClient, unit_name: str) -> None:
        self._client = client
        self.unit_name = unit_name
        self._unit_id: str | None = None

    async def unit(self) -> Json | None:
        """Return the unit's entry in the list of units, or None if it has none."""
        for unit in await self.get("process_units"):
            if unit["name"].endswith(f"({self.unit_name})"):
                self._unit_id = unit["id"]
                return dict(unit)
        return None

    async def state(self) -> str | None:
        """Return the unit's state in the list of units, or None if it is not there."""
        unit = await self.unit()
        return None if unit is None else str(unit["state"]["state"])

    async def unit_id(self) -> str:
        """Return the id that the aggregator gave the unit."""
        if self._unit_id is None:
            await self.unit()
        assert self._unit_id is not None, f"{self.unit_name} is not listed"
        return self._unit_id

    async def get(self, path: str) -> Any:
        """Return the JSON at a path below `/api/`."""
        answer = await self._client.get(f"/api/{path}")
        return answer.raise_for_status().json()

    async def of_unit(self, what: str) -> Any:
        """Return one of the unit's resources, such as `run_log`."""
        return await self.get(await self._path(what))

    async def post(self, what: str, body: Json) -> httpx2.Response:
        """Post to one of the unit's resources; the answer may be a refusal."""
        return await self._client.post(f"/api/{await self._path(what)}", json=body)

    async def press(self, button: str) -> None:
        """Press one of the unit's buttons, such as `Start`."""
        path = "execute_control_button_command"
        answer = await self.post(path, {"command": button, "source": "unit_button"})
        assert answer.is_success, f"{button}: {answer.status_code} {answer.text}"

    async def enter(self, pcode: str) -> httpx2.Response:
        """Enter a command by hand."""
        return await self.post("execute_command", {"command": pcode, "source": "manually_entered"})

    async def choose(self, value_name: str, option: str) -> httpx2.Response:
        """Choose one of the options that a process value offers."""
        (offered,) = (await self.process_values())[value_name]["commands"]
        chosen = {**offered["value"], "value": option}
        return await self.post(
            "execute_command", {**offered, "value": chosen, "source": "process_value"}
        )

    async def set_method(self, *lines: str) -> list[str]:
        """Save a method in place of the present one; return the ids of its lines."""
        before = await self.of_unit("method")
        ids = [f"{self.unit_name}-{number}" for number in range(1, len(lines) + 1)]
        body = {
            "lines": [{"id": i, "content": c} for i, c in zip(ids, lines, strict=True)],
            "version": before["version"],
            "last_author": "",
        }
        answer = await self.post("method", body)
        assert answer.is_success, f"{answer.status_code} {answer.text}"
        return ids

    async def process_values(self) -> dict[str, Json]:
        """Return the unit's process values by name."""
        return {value["name"]: value for value in await self.of_unit("process_values")}

    async def runs(self) -> list[Json]:
        """Return the unit's recent runs."""
        unit_id = await self.unit_id()
        return [run for run in await self.get("recent_runs/") if run["engine_id"] == unit_id]

    async def _path(self, what: str) -> str:
        # The id is already percent-encoded. Encoded once more, it survives the server's decoding.
        return f"process_unit/{quote(await self.unit_id(), safe='')}/{what}"


async def eventually(
    ask: Callable[[], Awaitable[T]], until: Callable[[T], object], *, within_s: float = 10.0
) -> T:
    """Ask an outside process again and again until its answer is right, and return that answer.

    Go on asking while the process does not answer.
    """
    answer: object = "no answer"
    with trio.move_on_after(within_s):
        while True:
            try:
                answer = got = await ask()
            except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
                answer = repr(error)
            else:
                if until(got):
                    return got
            await trio.sleep(0.1)
    raise AssertionError(f"not within {within_s} s; the last answer was {answer!r}")
