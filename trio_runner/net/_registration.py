"""Registration over HTTP, which gives the engine its id."""

import logging

import trio

from trio_runner import protocol
from trio_runner._errors import (
    AggregatorUnreachable,
    AlreadyConnected,
    DialError,
    NotAnAggregator,
    SecretRefused,
    VersionRefused,
)
from trio_runner._printable import printable
from trio_runner.net._address import USER_AGENT, Address
from trio_runner.net._http import REPLY_BYTES_MAX, ClosedInReply, NotHttp, Reply, exchange
from trio_runner.net._replies import Asked, why_not
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)


async def register(address: Address, message: em.RegisterEngineMsg) -> str:
    """Register with the aggregator and return the engine id.

    Raises DialError, whose subclass tells why; OSError or trio.BrokenResourceError if the
    connection fails. If cancelled, the aggregator may already know the engine, which does no harm.
    """
    content = protocol.encode_json(message).encode()
    reply = _decode_reply(address, await _post(address, content), len(content))
    if reply.success and reply.engine_id:
        if reply.version_match is False:
            logger.warning(
                "The versions differ: the aggregator at %s has %s, this engine has %s. This is"
                " ignored, as ignore_version_error is set. Install the same version on both sides.",
                address,
                printable(reply.aggregator_build_number),
                message.engine_version,
            )
        return reply.engine_id
    raise _refusal(address, message, reply)


def _decode_reply(address: Address, answer: Reply, bytes_sent: int) -> am.RegisterEngineReplyMsg:
    if answer.status == 200:
        if len(answer.body) > REPLY_BYTES_MAX:
            raise NotAnAggregator(
                f"What answers at {address} sends an answer without end. Check host, port and path."
            )
        try:
            reply = protocol.decode_json(answer.body.decode())
        except (protocol.DecodeError, UnicodeDecodeError):
            pass
        else:
            if isinstance(reply, am.RegisterEngineReplyMsg):
                return reply
    secure = address.ssl_context is not None
    raise why_not(Asked(str(address), secure, "registration", bytes_sent), answer)


def _refusal(
    address: Address, message: em.RegisterEngineMsg, reply: am.RegisterEngineReplyMsg
) -> DialError:
    if reply.secret_match is False:
        return SecretRefused(
            f"The aggregator at {address} refused the secret. Give this engine the secret that the"
            " aggregator was started with (--secret-file FILE)."
        )
    if reply.version_match is False:
        wanted = printable(reply.aggregator_build_number)
        return VersionRefused(
            f"The aggregator at {address} wants engines of version {wanted}, and this one is"
            f" {message.engine_version}. Install that version, or let this engine ignore the"
            " version error (--ignore_version_error).",
            wanted=wanted,
        )
    if reply.success:
        return NotAnAggregator(
            f"The aggregator at {address} took the registration but gave this engine no id."
        )
    name = printable(reply.engine_id or message.uod_name)
    return AlreadyConnected(
        f"The aggregator at {address} still holds a connection of an engine named {name}. If no"
        " other engine of that name runs, the aggregator will drop the old connection within 40 s."
    )


async def _post(address: Address, content: bytes) -> Reply:
    host = address.authority.encode("idna").decode()
    # httpcore2's own Host header would have an IPv6 address without brackets.
    headers = [("Host", host), ("Content-Type", "application/json"), ("User-Agent", USER_AGENT)]
    # Open it here: httpcore2 strips errors of their cause, which tells what to do.
    stream = await address.open()
    try:
        url = f"http://{host}{address.path}/engine-rest"
        return await exchange(stream, "POST", url, headers, content)
    except ClosedInReply as error:
        raise AggregatorUnreachable(
            f"The connection to {address.way} was closed during the registration. Is the aggregator"
            " just starting or stopping, or does it want a secure connection (--secure)?"
        ) from error
    except NotHttp:
        raise NotAnAggregator(
            f"What answers at {address} does not speak HTTP as expected. Check host, port and"
            " whether it wants a secure connection (--secure)."
        ) from None  # the parser's error quotes the peer, which may echo our secret
    finally:
        await trio.aclose_forcefully(stream)
