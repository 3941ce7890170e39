"""The base of all messages, and the answers that both sides give."""

from attrs import frozen

OPENPECTUS_VERSION = "0.1.1585"
"""The Open Pectus release whose protocol this package speaks."""


@frozen(kw_only=True)
class MessageBase:
    """What every message has: the version of the protocol, 0 everywhere today."""

    version: int = 0


@frozen(kw_only=True)
class SuccessMessage(MessageBase):
    """The message was handled."""


@frozen(kw_only=True)
class ErrorMessage(MessageBase):
    """The message was understood and could not be carried out.

    `message` is for people, `exception_message` tells the cause, `caller_error` is true where the
    one who asked is at fault.
    """

    message: str | None = None
    exception_message: str | None = None
    caller_error: bool = False


@frozen(kw_only=True)
class ProtocolErrorMessage(ErrorMessage):
    """The message could not be decoded or nobody handles its type; `protocol_msg` says which."""

    protocol_msg: str
