"""The layers of the package: a module imports only from its own layer or from those below."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_runner

ROOT = Path(trio_runner.__file__).parent

LAYERS = {
    "_errors": 0,
    "_backoff": 0,
    "_grid": 0,
    "_groups": 0,
    "_histogram": 0,
    "_printable": 0,
    "_run_var": 0,
    "_say_once": 0,
    "_states": 0,
    "_timing": 0,
    "_warnings": 0,
    "protocol": 1,
    "_engine": 2,
    "_mistakes": 2,
    "_outbox": 2,
    "_outbox_sqlite": 2,
    "_publish": 2,
    "_plain_commands": 2,
    "_plain_engine": 2,
    "_plain_messages": 2,
    "_plain_runs": 2,
    "_plain_unit": 2,
    "_window": 2,
    "net": 3,
    "_again": 4,
    "_answers": 4,
    "_away": 4,
    "_intake": 4,
    "_news": 4,
    "_notices": 4,
    "_sender": 4,
    "_tasks": 4,
    "_ticker": 4,
    "_runner": 4,
    "__init__": 4,  # the public face of what is below it
    "simulation": 5,
    "_cli": 6,
    "api": 6,
    "__main__": 6,
    "bridge": 6,
    "status": 6,
}
"""The layer of each module or package directly in `trio_runner`."""

ROOMS = {"skid": 0, "stand_ins": 1, "trials": 2, "__init__": 3}
"""The layer of each room in `trio_runner.simulation`; its `__init__` is the public face of all."""

MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def member(module: Path) -> str:
    """Return the module or package directly in `trio_runner` to which a file belongs."""
    return module.parts[0].removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    """Yield the full name of each module, or name in one, that a source imports anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def target(name: str) -> str | None:
    """Return the member of `trio_runner` that an import belongs to, or None for another package."""
    package, _, rest = name.partition(".")
    if package != "trio_runner":
        return None
    first = rest.partition(".")[0]
    return first if first in LAYERS else "__init__"


def room(name: str) -> int | None:
    """Return the layer of the room that an import belongs to, or None if it belongs to none."""
    parts = name.split(".")
    if parts[:2] != ["trio_runner", "simulation"]:
        return None
    return ROOMS.get(parts[2] if len(parts) > 2 else "__init__", ROOMS["__init__"])


def full_name(module: Path) -> str:
    """Return the name under which a file is imported."""
    parts = ("trio_runner", *module.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def faults(module: Path, source: str) -> list[str]:
    """Return the imports of a module that are against the rules."""
    own, own_room = member(module), room(full_name(module))
    found = []
    for name in imports(source):
        package, to = name.partition(".")[0], target(name)
        if (
            (to is not None and to != own and LAYERS[to] > LAYERS[own])
            or (to == "__init__" and LAYERS[own] < 5)
            or (own_room is not None and (room(name) or 0) > own_room)
            or (own == "protocol" and package == "trio")
            or (own != "bridge" and package == "openpectus")
        ):
            found.append(f"{module.as_posix()} imports {name}")
    return found


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return which of these modules each one imports, anywhere, even for type checking only.

    If a package re-exports a name, the import counts as one of the package, not of the name's
    module.
    """
    found = {}
    for module, source in sources.items():
        names = {name if name in sources else name.rpartition(".")[0] for name in imports(source)}
        found[module] = names & sources.keys()
    return found


def circle(imported: dict[str, set[str]]) -> list[str]:
    """Return the modules whose imports, followed onwards, end in a circle."""
    left = dict(imported)
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    return sorted(left)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.as_posix())
def test_imports_only_go_down(module: Path) -> None:
    """No module imports from a layer above its own, nor anything that its layer must be free of."""
    assert member(module) in LAYERS, "give the module its layer"
    assert faults(module, (ROOT / module).read_text()) == []


def test_no_imports_go_in_a_circle() -> None:
    """No module imports itself by way of others."""
    sources = {full_name(module): (ROOT / module).read_text() for module in MODULES}
    assert circle(graph(sources)) == []


def test_a_circle_is_found() -> None:
    """A circle is found even if one of its imports is for type checking only."""
    sources = {
        "p.a": "import trio",
        "p.b": "from p import a\nfrom p.c import C",
        "p.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B",
    }
    assert circle(graph(sources)) == ["p.b", "p.c"]
    assert circle(graph(sources | {"p.c": ""})) == []


def test_every_layer_has_modules() -> None:
    """The tests of the layers have seen modules of each one."""
    assert {"protocol", "net", "simulation", "_runner", "_errors"} <= {
        member(module) for module in MODULES
    }


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol/_rpc.py", "import trio"),
        ("protocol/_rpc.py", "from trio_runner.net import Session"),
        ("net/_session.py", "from trio_runner import EngineRunner"),
        ("net/_session.py", "from trio_runner._runner import EngineRunner"),
        ("net/_session.py", "def late():\n    import trio_runner._tasks"),
        ("_errors.py", "from trio_runner import protocol"),
        ("_runner.py", "from trio_runner.simulation import Aggregator"),
        ("simulation/skid/_skid.py", "from trio_runner._cli import main"),
        ("simulation/skid/_skid.py", "import openpectus"),
        ("simulation/skid/_skid.py", "from trio_runner.simulation.stand_ins import _disk"),
        ("simulation/skid/_skid.py", "from trio_runner.simulation.trials._world import World"),
        ("simulation/skid/_skid.py", "from trio_runner.simulation import Aggregator"),
        ("simulation/stand_ins/_disk.py", "import trio_runner.simulation.trials._trace"),
        ("_cli/_engine.py", "from openpectus.engine import main"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    """The tests would find each kind of wrong import."""
    assert len(faults(Path(module), source)) == 1
