"""The aggregator as an engine sees it: where it is, and which handler each message goes to."""

import logging
import os
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypedDict

import trio

from trio_runner import protocol
from trio_runner._engine import CommandHandlers
from trio_runner._errors import CommandError
from trio_runner._groups import leaves
from trio_runner._mistakes import require
from trio_runner._printable import printable
from trio_runner._say_once import SayOnce
from trio_runner._timing import Timing
from trio_runner._warnings import Warnings
from trio_runner.net._address import Address, refuse_address
from trio_runner.net._commands import Commands
from trio_runner.net._dialer import dial
from trio_runner.net._interfaces import Session, StreamOpener
from trio_runner.net._proxy import make_proxy, proxy_of_environment
from trio_runner.net._tcp import open_tcp_stream
from trio_runner.net._tls import make_context, refuse_tls_files
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

logger = logging.getLogger(__name__)

DEFAULT_PORT = 9800
DEFAULT_SECURE_PORT = 443

Handler = Callable[[Any], Awaitable[None]]


class NetworkOptions(TypedDict, total=False):
    """How to reach the aggregator; see `EngineDispatcher`."""

    path: str
    secure: bool
    ca_file: str | os.PathLike[str] | None
    client_cert: str | os.PathLike[str] | None
    client_key: str | os.PathLike[str] | None
    proxy: str | bool


class EngineDispatcher:
    """Dials the aggregator at an address and hands its commands to an engine's handlers.

    `path` is the path under which a proxy in front of the aggregator serves it, such as `/pectus`.

    `secure` encrypts the connection and verifies the aggregator's certificate against the system's
    trust store. With `ca_file` (PEM), only the authorities in that file are trusted. `client_cert`
    is the engine's own certificate (PEM), for servers that ask for one. Its key is in the same file
    or in `client_key`.

    `proxy` is the URL of an HTTP proxy, `http://user:password@host:3128`. True takes the proxy from
    the environment as httpx does (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY); False uses none.

    `open_stream` opens the byte streams. Tests and simulations use it to put their own network
    underneath; the environment's proxy is then ignored.

    Raises TypeError if `handlers` lacks a command's method, or if `host` or `port` is of another
    type. Raises ValueError for a URL or HOST:PORT in place of a host. Its subclass TlsFileUnusable
    is for a file that cannot be used or is given without `secure`, and its subclass ProxyUnusable
    for a `proxy` that is not a proxy's URL.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        *,
        handlers: CommandHandlers,
        path: str = "",
        secure: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        proxy: str | bool = True,
        open_stream: StreamOpener | None = None,
    ) -> None:
        if port is None:
            port = DEFAULT_SECURE_PORT if secure else DEFAULT_PORT
        refuse_address(host, port)
        require("EngineDispatcher", "handlers", handlers, CommandHandlers)
        context = make_context(ca_file, client_cert, client_key) if secure else None
        if context is None:
            refuse_tls_files(ca_file=ca_file, client_cert=client_cert, client_key=client_key)
        if proxy is True:
            url = None if open_stream else proxy_of_environment(host, port, is_secure=secure)
        else:
            url = None if proxy is False else proxy
        opener = open_stream or open_tcp_stream
        by = None if url is None else make_proxy(url, opener)
        self._address = Address(
            host,
            port,
            context,
            by.open if by else opener,
            path=path.rstrip("/"),
            through=str(by) if by else "",
        )
        self._say = SayOnce(logger)
        self._commands = Commands(self.dispatch)
        self._handlers: dict[type[m.MessageBase], Handler] = {
            am.ExecuteControlCommandMsg: lambda msg: handlers.execute_control_command(msg.name),
            am.InjectCodeMsg: lambda msg: handlers.inject_code(msg.pcode),
            am.MethodMsg: lambda msg: handlers.set_method(msg.method),
            am.CancelMsg: lambda msg: handlers.cancel(msg.exec_id),
            am.ForceMsg: lambda msg: handlers.force(msg.exec_id),
        }

    def __str__(self) -> str:
        return str(self._address)

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `trio_runner.net.Dialer`."""

        async def carry_out(message_json: object) -> m.MessageBase:
            return await self._commands.carry_out(message_json, timing.answer_s)

        self._say(logging.INFO, "Registering for engine id at %s", self._address.way)
        await dial(self._address, registration, carry_out, timing, task_status=task_status)

    def warn_by(self, warnings: Warnings) -> None:
        """See `trio_runner.net.Dialer`."""
        self._commands.warnings = warnings

    async def end_commands(self) -> None:
        """See `trio_runner.net.Dialer`."""
        await self._commands.end()

    async def dispatch(self, message_json: object) -> m.MessageBase:
        """Carry out a message from the aggregator and return the answer.

        If the handler raises, log it and return an error. The operator has to know that a command
        failed, but this is no reason to stop the engine.
        """
        try:
            message = protocol.decode(message_json)
        except protocol.DecodeError as error:
            problem = printable(str(error))
            self._complain(problem)
            return m.ProtocolErrorMessage(protocol_msg=f"The message cannot be read: {problem}")
        handler = self._handlers.get(type(message))
        if handler is None:
            return m.ProtocolErrorMessage(
                protocol_msg=f"An engine does not handle {type(message).__name__}"
            )
        command = _COMMAND_NAMES[type(message)]
        what = printable(_WHAT[type(message)](message))
        logger.info("Incomming %s command from aggregator: %s", command, what)
        return await _outcome(handler, message, command)

    def _complain(self, error: str) -> None:
        # An aggregator of another version may send the same message again and again.
        self._say(
            logging.WARNING,
            "The aggregator sent a message that cannot be read: %s",
            printable(error),
        )


_COMMAND_NAMES: dict[type[m.MessageBase], str] = {
    am.ExecuteControlCommandMsg: "control",
    am.InjectCodeMsg: "inject_code",
    am.MethodMsg: "set_method",  # people search logs for "Incomming set_method command", so spelled
    am.CancelMsg: "cancel",
    am.ForceMsg: "force",
}


def _lines(number: int) -> str:
    return "1 line" if number == 1 else f"{number} lines"


_WHAT: dict[type[m.MessageBase], Callable[[Any], str]] = {
    am.ExecuteControlCommandMsg: lambda msg: msg.name,
    am.InjectCodeMsg: lambda msg: msg.pcode,
    am.MethodMsg: lambda msg: _lines(len(msg.method.lines)),
    am.CancelMsg: lambda msg: msg.exec_id,
    am.ForceMsg: lambda msg: msg.exec_id,
}
"""What each command asks for. People read the log to learn who did what, and when."""


async def _outcome(handler: Handler, message: m.MessageBase, command: str) -> m.MessageBase:
    try:
        carried_out = handler(message)
        if not isawaitable(carried_out):
            raise TypeError(f"the handler of the {command} command has to be an async function")
        await carried_out
    except Exception as raised:
        error = _alone(raised)
        if isinstance(error, CommandError):
            logger.warning("The %s command was refused: %s", command, printable(error.message))
            return m.ErrorMessage(message=error.message, caller_error=error.caller_error)
        logger.exception("The %s command failed", command)
        return m.ErrorMessage(
            message=f"The engine failed to carry out the {command} command",
            exception_message=str(error),
        )
    return m.SuccessMessage()


def _alone(error: Exception) -> BaseException:
    """Return the only exception in a group, such as a handler's nursery raises.

    A group of several, or a single exception, is returned unchanged.
    """
    inner = list(leaves(error))
    return inner[0] if len(inner) == 1 else error
