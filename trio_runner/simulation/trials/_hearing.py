"""What an engine tells, on its way to the runner."""

from collections.abc import Callable

from attrs import frozen

from trio_runner._engine import (
    BlockInfo,
    ConnectionStatus,
    EventListener,
    RunStateChange,
    ScopeInfo,
)
from trio_runner.simulation.trials._manners import Manners


@frozen
class Hearing:
    """A listener that checks what an engine tells and passes it on, unless its process is over."""

    _listener: EventListener
    _manners: Manners
    _is_over: Callable[[], bool]

    def on_start(self, run_id: str) -> None:
        """See `EventListener`, as for all of these methods."""
        if not self._is_over():
            self._manners.begin_run(run_id)
            self._listener.on_start(run_id)

    def on_stop(self) -> None:
        """See `EventListener`."""
        if not self._is_over():
            try:
                self._listener.on_stop()
            finally:
                self._manners.end_run()

    def on_runstate_change(self, state_change: RunStateChange) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_runstate_change(state_change)

    def on_block_start(self, block_info: BlockInfo) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_block_start(block_info)

    def on_notify_command(self, argument: str) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_notify_command(argument)

    def on_scope_activate(self, scope_info: ScopeInfo) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_scope_activate(scope_info)

    def on_method_error(self, exception: Exception) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_method_error(exception)

    def on_connection_status_change(self, status: ConnectionStatus) -> None:
        """See `EventListener`."""
        if not self._is_over():
            self._listener.on_connection_status_change(status)
