"""What a receiver can take: ready-made frames, sent without looking at the answers."""

import json
import socket
import threading
import time

from tests.bench.lines import hear, job, tell
from tests.bench.work import Plant

UPGRADE = (
    "GET /engine-rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: aIndGrCjfQGWq50zYiPV0g==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ANSWERED = b"SuccessMessage"


def frame(text: bytes) -> bytes:
    """Return a text as a client's frame; its mask is zero, so the payload is the text itself."""
    size = len(text)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + text


def message(number: int, plant: Plant) -> bytes:
    """Return the frame of a TagsUpdated message."""
    names = ("name", "tick_time", "value", "value_unit", "value_formatted", "direction")
    tags = [{**dict(zip(names, tag, strict=True)), "simulated": None} for tag in plant.tags(1.7e9)]
    body = {
        "version": 0,
        "sequence_number": number,
        "engine_id": "blaster",
        "tags": tags,
        "run_id": None,
        "_type": "TagsUpdatedMsg",
        "_ns": "openpectus.protocol.engine_messages",
    }
    call = {"method": "dispatch_message_async", "arguments": {"message_json": body}}
    text = json.dumps({"request": {**call, "call_id": f"{number:032x}"}, "response": None})
    return frame(text.replace('": ', '":').replace(', "', ',"').encode())


def main() -> None:
    """Blast; tell when that began and when the last answer came."""
    given = job()
    count, plant = given["count"], Plant(20)
    ready = b"".join(message(n, plant) for n in range(1000)) * (count // 1000)
    with socket.create_connection(("127.0.0.1", given["port"])) as connection:
        connection.sendall(UPGRADE.encode())
        while b"get_engine_id_async" not in connection.recv(65536):
            pass
        identity = '{"request":null,"response":{"result":"%s","result_type":"str","call_id":"1"}}'
        connection.sendall(frame((identity % "blaster").encode()))
        began = time.monotonic()
        threading.Thread(target=connection.sendall, args=(ready,), daemon=True).start()
        answers, rest = 0, b""
        while answers < count:
            data = rest + connection.recv(1 << 20)
            answers += data.count(ANSWERED)
            # A word that is cut in two is counted with the next piece, and a whole one only once.
            rest = data[data.rfind(ANSWERED) + 1 :][-len(ANSWERED) + 1 :]
    tell(first=began, last=time.monotonic(), count=count)
    hear()


if __name__ == "__main__":
    main()
