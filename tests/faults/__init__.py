"""Faults of the network, each over real sockets."""

import pytest

pytest.register_assert_rewrite("tests.faults.scene", "tests.faults.cases")
