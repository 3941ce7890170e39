"""The real Open Pectus engine on this runner: its UOD, its hardware, its methods, unchanged.

    engine = UodEngine(load_uod("my_uod.py"), secret="...")
    engine.connect()                                   # to the hardware; it blocks
    dispatcher = UodDispatcher("127.0.0.1", 9800, engine=engine)
    runner = EngineRunner(
        dispatcher, engine.builder, engine.emitter, resume_run=engine.run_id
    )
    runner.first_steady_state_callback = engine.start

The engine ticks in its own thread, as it does under `pectus-engine`. Its messages go out as its
package serialises them, and people's commands reach its own handlers. So messages and fields that
this project does not know pass through. The package `openpectus` is imported here and nowhere else;
importing this package sets up logging as `openpectus` does.
"""

from trio_runner.bridge._arguments import Arguments, parse
from trio_runner.bridge._builder import UodMessageBuilder
from trio_runner.bridge._dispatcher import UodDispatcher
from trio_runner.bridge._emitter import UodEventEmitter
from trio_runner.bridge._engine import EngineStopped, UodEngine, UodUnusable, load_uod
from trio_runner.bridge._logging import current_unit, name_units_in_log
from trio_runner.bridge._package import (
    OPENPECTUS_VERSION,
    banner,
    show_register_details,
    start_sentry,
    validate,
    warn_of_roles,
)
from trio_runner.bridge._wire import to_object

__all__ = [
    "OPENPECTUS_VERSION",
    "Arguments",
    "EngineStopped",
    "UodDispatcher",
    "UodEngine",
    "UodEventEmitter",
    "UodMessageBuilder",
    "UodUnusable",
    "banner",
    "current_unit",
    "load_uod",
    "name_units_in_log",
    "parse",
    "show_register_details",
    "start_sentry",
    "to_object",
    "validate",
    "warn_of_roles",
]
