"""The page of the public API lists every public name with its documentation."""

import inspect

import pytest

from trio_runner import api

PUBLIC = [(package, name) for package in api.PACKAGES for name in package.__all__]


@pytest.mark.parametrize(
    ("package", "name"), PUBLIC, ids=[f"{p.__name__}.{name}" for p, name in PUBLIC]
)
def test_every_public_name_is_documented(package: object, name: str) -> None:
    """The name itself, its methods and its properties have docstrings written in this project."""
    given = getattr(package, name)
    text = api.documentation(package, name)
    assert text
    assert f"\n{text.splitlines()[0]}\n" in api.page()
    for member, value in vars(given).items() if inspect.isclass(given) else ():
        if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), member


def test_the_page_lists_every_public_name() -> None:
    """Each is listed once for each package, with its signature, and methods below their class."""
    lines = api.page().splitlines()
    for _, name in PUBLIC:
        assert any(line.startswith((f"## `{name}`", f"## `{name}(")) for line in lines), name
    assert "### `EngineRunner.state_changes()`" in lines
    assert "## `Timing(*, tick_s=0.1, " in "\n".join(lines)
