"""The package's event emitter, with the interface that the runner listens to."""

from typing import Any

from openpectus.lang.exec.events import EventEmitter
from openpectus.lang.exec.events import EventListener as PackageListener

from trio_runner import EventListener


class UodEventEmitter:
    """Subscribes listeners of this project to the engine's emitter."""

    def __init__(self, emitter: EventEmitter) -> None:
        self._emitter: Any = emitter

    def add_listener(self, listener: EventListener) -> None:
        """Call the listener's methods from now on, in the thread that emits an event.

        Usually this is the engine's thread, but `UodEngine.stop` emits in its caller's.
        """
        self._emitter.add_listener(_Listener(listener))


class _Listener(PackageListener):  # type: ignore[misc]
    """Receives all events of the package and hands on those that a runner listens to."""

    def __init__(self, listener: EventListener) -> None:
        super().__init__()
        self._listener = listener

    def on_start(self, run_id: str) -> None:
        self._listener.on_start(run_id)

    def on_stop(self) -> None:
        super().on_stop()
        self._listener.on_stop()

    def on_runstate_change(self, state_change: Any) -> None:
        self._listener.on_runstate_change(state_change)

    def on_block_start(self, block_info: Any) -> None:
        self._listener.on_block_start(block_info)

    def on_notify_command(self, argument: str) -> None:
        self._listener.on_notify_command(argument)

    def on_scope_activate(self, scope_info: Any) -> None:
        self._listener.on_scope_activate(scope_info)

    def on_method_error(self, exception: Exception) -> None:
        self._listener.on_method_error(exception)

    def on_connection_status_change(self, status: Any) -> None:
        self._listener.on_connection_status_change(status)
