"""The base of all messages, and the answers that both sides give."""

from attrs import frozen

OPENPECTUS_VERSION = "0.1.1585"
"""The Open Pectus release whose protocol this package speaks."""


@frozen(kw_only=True)
class MessageBase:
    """The base of all messages; `version` is the version of the protocol, so far always 0."""

    version: int = 0


@frozen(kw_only=True)
class SuccessMessage(MessageBase):
    """The message was handled."""


@frozen(kw_only=True)
class ErrorMessage(MessageBase):
    """The message was understood but could not be carried out.

    `message` is for people, `exception_message` tells the cause, and `caller_error` is true if the
    caller is at fault.
    """

    message: str | None = None
    exception_message: str | None = None
    caller_error: bool = False


@frozen(kw_only=True)
class ProtocolErrorMessage(ErrorMessage):
    """The message cannot be decoded or its type is not handled; `protocol_msg` says which."""

    protocol_msg: str
