"""The real Open Pectus engine. The tests are skipped where its package is not installed.

With `TRIO_RUNNER_REQUIRE_BRIDGE=1` that is a failure instead.
"""

import importlib.util
import logging
import os
import warnings

import pytest

HOW_TO_GET_IT = "needs Python 3.12 or newer and: pip install -e '.[test,openpectus]'"

if importlib.util.find_spec("openpectus") is None:
    if os.environ.get("TRIO_RUNNER_REQUIRE_BRIDGE") == "1":
        raise RuntimeError(f"the bridge's tests are required here: this {HOW_TO_GET_IT}")
    pytest.skip(HOW_TO_GET_IT, allow_module_level=True)

# The package warns when it is imported, and sets up logging as if it were the program.
_root = logging.getLogger()
_handlers, _level = list(_root.handlers), _root.level
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import trio_runner.bridge  # noqa: F401
_root.handlers[:] = _handlers
_root.setLevel(_level)
