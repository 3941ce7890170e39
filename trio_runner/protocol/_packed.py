"""Messages as they wait: packed once, when they are taken, and sent as they are.

A packed body is an ordinary zlib stream of the text that `encode_body` gave. What is special is
where its blocks end: behind the opening brace, with nothing later that refers to it, and at the
end, both at whole bytes. So what belongs in front of the first field and behind the last can be put
there, as blocks that are not compressed, and all of it is the payload of a websocket frame under
permessage-deflate (RFC 7692), without a byte of the body being touched.

What it costs: 13 bytes more for a body that waits and some 180 that are not compressed in each
frame; it saves unpacking, encoding and compressing, and of a sample of 20 tags four fifths of what
would be masked and go over the wire.
"""

import zlib

from trio_runner.protocol._json import found
from trio_runner.protocol._rpc import frame_around

_LEVEL = 1
"""Of a sample of 20 tags it leaves 460 of 3,100 bytes; level 6 takes 14 more, in twice the time."""

_BRACE = "{"


def _packed_brace(packer: "zlib._Compress") -> bytes:
    return packer.compress(_BRACE.encode()) + packer.flush(zlib.Z_FULL_FLUSH)


_HEAD = _packed_brace(zlib.compressobj(_LEVEL))
"""How every packed body begins: zlib's header, the brace, and an end that is a whole byte."""

_TAIL = 6
"""How every one ends, in bytes: the empty last block and the checksum."""

_EMPTY_BLOCK = b"\x00"
"""Stands for the end of a flushed block, of which the frame leaves out 00 00 ff ff."""

_BLOCK_MAX = 0xFFFF


def pack(text: str) -> bytes:
    """Return a body as it waits.

    Raises:
        ValueError: it is not the text of a JSON object with at least one field.
    """
    if not text.startswith('{"'):
        raise ValueError(f"expected the text of a JSON object, found {found(text)}")
    packer = zlib.compressobj(_LEVEL)
    head = _packed_brace(packer)
    body = packer.compress(text[1:].encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    return head + body + packer.flush()


def unpack(packed: bytes) -> str:
    """Return the text that `pack` was given.

    Raises:
        zlib.error: the bytes were changed.
        UnicodeDecodeError: what they hold is no text.
    """
    return zlib.decompress(packed).decode()


def splice_dispatch(call_id: str, engine_id: str, sequence_number: int, packed: bytes) -> bytes:
    """Return the compressed frame that dispatches a packed engine message.

    It holds what `encode_dispatch` gives.
    """
    if not packed.startswith(_HEAD):  # compressed otherwise, by an earlier version of this package
        packed = pack(unpack(packed))
    head, tail = frame_around(call_id, engine_id, sequence_number)
    return b"".join(
        (_stored(head), packed[len(_HEAD) : -_TAIL], _stored(tail), _EMPTY_BLOCK),
    )


def _stored(text: str) -> bytes:
    """Return a text as a block that is not compressed, or as several."""
    data = text.encode()
    size = len(data)
    if size > _BLOCK_MAX:  # the engine's id is what the aggregator says it is
        half = len(text) // 2
        return _stored(text[:half]) + _stored(text[half:])
    return b"\x00" + size.to_bytes(2, "little") + (size ^ _BLOCK_MAX).to_bytes(2, "little") + data
