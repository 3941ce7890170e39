"""What the runners of a process do, told over HTTP: a page, `/health`, `/metrics`, `/status.json`.

Nothing can be changed over it. It needs what `trio-runner[status]` installs.
"""

from trio_runner.status._board import Unit
from trio_runner.status._server import serve

__all__ = ["Unit", "serve"]
