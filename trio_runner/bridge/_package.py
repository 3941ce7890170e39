"""What `pectus-engine` does besides running an engine, done with the package's own code."""

import logging
import os
from collections.abc import Callable
from typing import Any

import openpectus
from openpectus import sentry
from openpectus.engine import main as package

logger = logging.getLogger(__name__)

OPENPECTUS_VERSION: str = openpectus.__version__
"""The version of the installed package."""


def banner() -> str:
    """Return the line with which the engine introduces itself."""
    return f"OpenPectus Engine v. {OPENPECTUS_VERSION}, build: {openpectus.build_number}"


def uod_path(given: str) -> str:
    """Return the path of a UOD file; the package's default stands for its demo unit."""
    if given != package.default_uod:
        return given
    return os.path.join(os.path.dirname(package.__file__), "configuration", "demo_uod.py")


def start_sentry(event_level: str) -> None:
    """Set up the package's error reporting, which reports only if the environment says so."""
    sentry.init_engine(event_level)


def validate(uods: list[str]) -> int:
    """Carry out `-validate` for each UOD and return the highest exit code."""
    return max(_exit_code(package.validate_and_exit, uod) for uod in uods)


def show_register_details(uods: list[str]) -> int:
    """Carry out `-rd` for each UOD and return the highest exit code."""
    return max(_exit_code(package.show_register_details_and_exit, uod) for uod in uods)


def _exit_code(act_and_exit: Callable[[str], None], uod: str) -> int:
    try:
        act_and_exit(uod)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def warn_of_roles(uod: Any, url: str) -> None:
    """Warn if the UOD asks for roles but the aggregator at `url` does not support them.

    This blocks. Raises what a failing HTTP request raises.
    """
    if not uod.required_roles:
        return
    scheme, _, where = url.partition("://")
    secure = scheme == "https"
    dispatcher = package.EngineDispatcher(None, where, secure, dict(uod.options))
    if not dispatcher.is_aggregator_authentication_enabled():
        logger.warning(
            "%s asks for roles (with_required_roles), but the aggregator does not support"
            " authentication: the unit will not be visible on its page",
            uod.instrument,
        )
