"""The command, as people start it."""

import pytest

pytest.register_assert_rewrite("tests.cli.processes")
