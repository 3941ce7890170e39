"""How the files of a unit are named."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from trio_runner._cli._unit_files import file_name, outbox_path


@pytest.mark.parametrize("unit", ["Filtration Skid", "skid-7_b", "Labor.2"])
def test_a_usual_name_stays_as_it_is(unit: str) -> None:
    """It has letters, digits, spaces inside, `_`, `-` and `.`."""
    assert file_name(unit) == unit


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("a/b", "a%2Fb"),
        ("..", ".%2E"),
        ("a:b\\c", "a%3Ab%5Cc"),
        ("CON", "%43ON"),
        ("nul", "%6Eul"),
        ("com1.skid", "%63om1.skid"),
        ("LPT9 ", "%4CPT9%20"),
        ("Aux .x", "%41ux .x"),
        ("Skid.", "Skid%2E"),
        ("Skid ", "Skid%20"),
        ("console", "console"),
        ("COM10", "COM10"),
    ],
)
def test_a_name_that_some_system_does_not_take_is_quoted(unit: str, name: str) -> None:
    """So is whatever a system would change, and the unit's name can be recovered."""
    assert file_name(unit) == name
    assert unquote(name) == unit


def test_long_names_give_different_files() -> None:
    """No system takes more than 255 bytes. Two names that begin alike are told apart."""
    first, second = file_name("ü" * 300), file_name("ü" * 301)
    assert first != second
    assert max(len(first), len(second)) < 180


def test_names_that_differ_only_in_case_give_files_that_differ_in_more(tmp_path: Path) -> None:
    """The first unit keeps the plain name, and both find their files again."""
    units = ["Skid", "skid", "SKID"]
    paths = []
    for unit in units:
        paths.append(outbox_path(tmp_path, unit))
        paths[-1].touch()
    assert paths[0] == tmp_path / "Skid.outbox"
    assert len({path.name.casefold() for path in paths}) == 3
    assert [outbox_path(tmp_path, unit) for unit in units] == paths
    paths[0].unlink()
    assert [outbox_path(tmp_path, unit) for unit in units[1:]] == paths[1:]
