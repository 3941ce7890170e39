"""What the runners in a process do, over HTTP: a page, `/health`, `/metrics`, `/status.json`.

This is read-only. It needs what `trio-runner[status]` installs.
"""

from trio_runner.status._board import Unit
from trio_runner.status._server import serve

__all__ = ["Unit", "serve"]
