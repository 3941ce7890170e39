"""The version is in one place, `pyproject.toml`, and the changelog has an entry for it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_changelog_begins_with_the_version() -> None:
    """No module contains the version: `--version` and User-Agent ask the installation."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    entries = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == version
    assert not [p for p in (ROOT / "trio_runner").rglob("*.py") if f'"{version}"' in p.read_text()]
