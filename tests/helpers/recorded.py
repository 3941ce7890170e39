"""The truth about the wire: examples of all messages, their fields, and a recorded conversation."""

import json
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parents[1] / "protocol" / "data"

MESSAGES: dict[str, Any] = json.loads((_DATA / "messages.json").read_text(encoding="utf-8"))

EXAMPLES: dict[str, dict[str, Any]] = {
    f"{section}.{name}": example
    for section in ("engine", "aggregator", "common")
    for name, example in MESSAGES[section].items()
}

CONVERSATION: list[dict[str, Any]] = [
    json.loads(line)
    for line in (_DATA / "conversation.jsonl").read_text(encoding="utf-8").splitlines()
]

FRAMES: list[dict[str, Any]] = [row["text"] for row in CONVERSATION if "text" in row]
