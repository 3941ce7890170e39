"""Print the public API, made from the docstrings: `python -m trio_runner.api > api.md`."""

import ast
import inspect
from collections.abc import Iterator
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path

import trio_runner
from trio_runner import protocol, simulation

PACKAGES = trio_runner, simulation, protocol
"""The packages whose `__all__` is public."""


@cache
def page() -> str:
    """Return the page as Markdown: each public name with its signature and its docstring."""
    return "\n".join(line for package in PACKAGES for line in _package(package)) + "\n"


def documentation(owner: object, name: str) -> str | None:
    """Return the docstring of a name; for a constant or alias, the string that follows it."""
    given = getattr(owner, name)
    if inspect.isclass(given) or inspect.isroutine(given):
        return inspect.getdoc(given)
    return _assigned().get(name)


def _package(package: object) -> Iterator[str]:
    name = getattr(package, "__name__", "")
    yield from (f"# {name}", "", inspect.getdoc(package) or "", "")
    for member in getattr(package, "__all__", ()):
        yield from _entry(package, member)


def _entry(owner: object, name: str, heading: str = "##") -> Iterator[str]:
    given = getattr(owner, name)
    yield from (f"{heading} `{name}{_signature(given)}`", "", documentation(owner, name) or "", "")
    if inspect.isclass(given):
        for member, value in vars(given).items():
            if not member.startswith("_") and (inspect.isroutine(value) or _is_property(value)):
                yield from _method(given, member)


def _method(owner: type, name: str) -> Iterator[str]:
    value = inspect.getattr_static(owner, name)
    yield from (
        f"### `{owner.__name__}.{name}{_signature(value)}`",
        "",
        inspect.getdoc(value) or "",
        "",
    )


def _is_property(value: object) -> bool:
    return isinstance(value, property)


def _signature(given: object) -> str:
    is_made = not (inspect.isclass(given) and issubclass(given, Enum))
    if not callable(given) or not is_made or getattr(given, "_is_protocol", False):
        return ""
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # some exceptions have no signature of their own
        return ""
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    plain = [p.replace(annotation=p.empty) for p in parameters]
    return str(inspect.Signature(plain))


def _target(node: ast.stmt) -> ast.expr | None:
    if isinstance(node, ast.AnnAssign):
        return node.target
    return node.targets[0] if isinstance(node, ast.Assign) else None


@cache
def _assigned() -> dict[str, str]:
    """Return the strings that follow assignments at the top of modules, by the assigned name."""
    found = {}
    for path in sorted(Path(trio_runner.__file__).parent.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, after in pairwise(body):
            target = _target(node)
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(target, ast.Name) and is_text:
                found[target.id] = inspect.cleandoc(str(after.value.value))  # type: ignore[attr-defined]
    return found


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
