"""The Aggregator-Engine protocol without I/O: messages, their JSON, and the RPC frames around them.

    message objects <-> JSON objects (`encode`, `decode`) <-> text (`encode_json`, `decode_json`)
    calls and answers <-> text frames (`encode_request`, `encode_response`, `decode_frame`)
    an engine message -> what waits in the outbox (`encode_body`, `pack`)
    what waits -> a frame (`splice_dispatch`)

Whatever the other side sends, the decoders either return what they promise or raise `DecodeError`.
"""

from trio_runner.protocol._codec import (
    NOT_IN_BODY,
    configure_converter,
    decode,
    decode_json,
    encode,
    encode_body,
    encode_json,
    make_converter,
)
from trio_runner.protocol._errors import DecodeError
from trio_runner.protocol._foreign import foreign, kind_of
from trio_runner.protocol._json import dumps, loads
from trio_runner.protocol._packed import pack, splice_dispatch, unpack
from trio_runner.protocol._rpc import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    Request,
    Response,
    decode_frame,
    encode_dispatch,
    encode_request,
    encode_response,
)
from trio_runner.protocol.messages import (
    OPENPECTUS_VERSION,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    SuccessMessage,
)

__all__ = [
    "DISPATCH",
    "GET_ENGINE_ID",
    "NOT_IN_BODY",
    "OPENPECTUS_VERSION",
    "PING",
    "DecodeError",
    "ErrorMessage",
    "MessageBase",
    "ProtocolErrorMessage",
    "Request",
    "Response",
    "SuccessMessage",
    "configure_converter",
    "decode",
    "decode_frame",
    "decode_json",
    "dumps",
    "encode",
    "encode_body",
    "encode_dispatch",
    "encode_json",
    "encode_request",
    "encode_response",
    "foreign",
    "kind_of",
    "loads",
    "make_converter",
    "pack",
    "splice_dispatch",
    "unpack",
]
