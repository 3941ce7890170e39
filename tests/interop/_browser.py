"""Headless Chromium, driven over the Chrome DevTools protocol."""

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import trio
import trio_websocket

CHROMIUM = Path("/usr/bin/chromium")
HOW_TO_GET_IT = "install Debian's chromium: apt-get install chromium"

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # that of a container is too small for a page
    "--disable-sync",
    "--remote-debugging-port=0",
)
_START_S = 30.0
_ANSWER_S = 20.0
_FRAME_BYTES_MAX = 64 * 2**20  # a screenshot comes as one frame


class PageError(Exception):
    """Raised when the browser refuses a command, or when a script in the page fails."""


class Page:
    """One page of the browser."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self._call_ids = count(1)
        self.troubles: list[str] = []
        """Errors of the pages' scripts, and what the browser has refused, since `watch`."""

    async def watch(self) -> None:
        """Keep everything that goes wrong in a page from now on."""
        for domain in ("Runtime", "Log"):
            await self._call(f"{domain}.enable")

    async def open(self, url: str) -> None:
        """Go to a URL. The page shows its content a while later."""
        answer = await self._call("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression, as JSON."""
        answer = await self._call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise PageError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def text(self) -> str:
        """Return the text that a person sees."""
        return str(await self.evaluate("document.body ? document.body.innerText : ''"))

    async def resize(self, width: int, height: int) -> None:
        """Give the page this size (CSS pixels)."""
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def prefer(self, scheme: str) -> None:
        """Show the page as to a person who prefers `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._call("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, png: Path) -> None:
        """Write a picture of what the page shows."""
        answer = await self._call("Page.captureScreenshot", format="png")
        await trio.Path(png).write_bytes(base64.b64decode(answer["data"]))

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        call_id = next(self._call_ids)
        command = {"id": call_id, "method": method, "params": params}
        with trio.fail_after(_ANSWER_S):
            await self._connection.send_message(json.dumps(command))
            while True:
                answer = json.loads(await self._connection.get_message())
                if answer.get("id") == call_id:
                    break
                self._note_trouble(answer)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _note_trouble(self, event: dict[str, Any]) -> None:
        kind, told = event.get("method", ""), event.get("params", {})
        level = told.get("type") or told.get("entry", {}).get("level")
        if kind == "Runtime.exceptionThrown" or level in ("error", "warning"):
            self.troubles.append(json.dumps(told))


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Page]:
    """Run Chromium with a new profile in the folder, and yield its page."""
    log = folder / "chromium.log"
    process = _start(folder / "profile", log)
    try:
        url = await _page_url(process, folder / "profile" / "DevToolsActivePort", log)
        async with trio_websocket.open_websocket_url(
            url, max_message_size=_FRAME_BYTES_MAX, message_queue_size=64
        ) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_wait_or_kill, process)


def _start(profile: Path, log: Path) -> "subprocess.Popen[bytes]":
    command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )


async def _page_url(process: "subprocess.Popen[bytes]", port_file: Path, log: Path) -> str:
    with trio.move_on_after(_START_S):
        while process.poll() is None:
            port = _first_line(port_file)
            if port is not None:
                return await _first_page(port)
            await trio.sleep(0.05)
    raise RuntimeError(f"Chromium did not start:\n{log.read_text(errors='replace')}")


def _first_line(file: Path) -> str | None:
    text = file.read_text() if file.exists() else ""
    return text.splitlines()[0] if "\n" in text else None


async def _first_page(port: str) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        targets = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
    return next(str(t["webSocketDebuggerUrl"]) for t in targets if t["type"] == "page")


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
