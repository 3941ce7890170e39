"""The mutants: the core's functions with one small change each.

The changes are those of mutmut, and two more: a statement that only calls something goes, and a
condition without an operator is negated. As with mutmut, only what stands inside functions changes.
Annotations, assertions, errors that are raised, texts for people, what the log is given, and
`__str__` and `__repr__` stay as they are.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from functools import cached_property
from pathlib import Path
from types import CodeType

import libcst as cst
from attrs import frozen
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

PACKAGE = Path(__file__).parents[2] / "trio_runner"

CORE = (
    "_again.py",
    "_answers.py",
    "_away.py",
    "_backoff.py",
    "_intake.py",
    "_news.py",
    "_notices.py",
    "_outbox/*.py",
    "_outbox_sqlite/*.py",
    "_sender.py",
    "_states.py",
    "_tasks.py",
    "_ticker.py",
    "_window.py",
    "net/_session.py",
)
"""What is mutated, below the package."""

NOISE = cst.Annotation, cst.Assert, cst.ConcatenatedString, cst.FormattedString, cst.Raise
"""Nodes in which nothing changes."""

LEFT_ALONE = {"cast", "isinstance", "len", "printable"}
"""Functions whose arguments do not change."""

TALKS = {"_complain", "_say", "_warn", "say", "tell", "warn"}
"""Functions that are given texts for people. Only the call as a whole may go."""


@frozen(eq=False, slots=False)
class Mutant:
    """A change of a function: the node that is replaced, and what replaces it."""

    path: Path
    function: str
    """Its `__qualname__`."""
    defined_at: int
    """The line of its `def`."""
    lines: range
    """The lines of the statement that changes."""
    _number: int
    """Which of the mutants of its function it is."""
    _tree: cst.Module
    _definition: cst.FunctionDef
    _old: cst.CSTNode
    _new: cst.CSTNode

    @property
    def module(self) -> str:
        """The path below the package, without the suffix."""
        return self.path.relative_to(PACKAGE).with_suffix("").as_posix()

    @cached_property
    def source(self) -> str:
        """The whole module with the change."""
        changed = self._tree.deep_replace(self._old, self._new)
        assert isinstance(changed, cst.Module)
        return changed.code

    @cached_property
    def diff(self) -> str:
        """The lines that change."""
        before, after = self._tree.code.splitlines(), self.source.splitlines()
        lines = list(unified_diff(before, after, n=0, lineterm=""))[2:]
        return "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-")

    @property
    def key(self) -> str:
        """What tells this mutant from all others for as long as its function stays as it is."""
        return f"{self.function} {self._hash('key', self._number)}"

    def rank(self, seed: int) -> str:
        """Return its place in an order of chance."""
        return self._hash(seed, self._number)

    def _hash(self, *what: object) -> str:
        text = f"{self.function} {what} {self._tree.code_for_node(self._definition)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def code(self) -> CodeType:
        """Return what the function becomes. Raises SyntaxError if that is no Python."""
        compiled = compile(self.source, str(self.path), "exec")
        return function_code(all_code(compiled), self.function, self.defined_at)


def all_code(code: CodeType) -> Iterator[CodeType]:
    """Return a code object and all that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from all_code(constant)


def function_code(codes: Iterable[CodeType], name: str, defined_at: int) -> CodeType:
    """Return a function's code; a property and its setter have the same name."""
    found = (c for c in codes if c.co_qualname == name and c.co_firstlineno <= defined_at)
    return max(found, key=lambda code: code.co_firstlineno)


def core_modules(only: str | None = None) -> list[Path]:
    """Return the modules that are mutated, or those of them whose path below the package is so."""
    paths = sorted(path for pattern in CORE for path in PACKAGE.glob(pattern))
    names = {path: path.relative_to(PACKAGE).with_suffix("").as_posix() for path in paths}
    return [path for path in paths if only is None or only == names[path]]


def sample(mutants: Iterable[Mutant], share: float, seed: int) -> list[Mutant]:
    """Return a share of the mutants of each module, at least one, in an order of chance.

    A function that does not change keeps its place in that order, and so most of the sample stays.
    """
    of_modules: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        of_modules.setdefault(mutant.module, []).append(mutant)
    chosen = list[Mutant]()
    for found in of_modules.values():
        found.sort(key=lambda mutant: mutant.rank(seed))
        chosen += found[: math.ceil(share * len(found))]
    chosen.sort(key=lambda mutant: mutant.rank(seed))
    return chosen


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
    positions = wrapper.resolve(PositionProvider)

    def lines_of(node: cst.CSTNode) -> range:
        return range(positions[node].start.line, positions[node].end.line + 1)

    for name, function in _functions(wrapper.module):
        for number, (statement, old, new) in enumerate(_changes(function.body, None)):
            if _says_another_name(old, new):
                continue
            place = old if statement is None or old not in positions else statement
            yield Mutant(
                path,
                name,
                lines_of(function).start,
                lines_of(place),
                number,
                wrapper.module,
                function,
                old,
                new,
            )


def _functions(module: cst.Module) -> Iterator[tuple[str, cst.FunctionDef]]:
    for node in module.body:
        if isinstance(node, cst.FunctionDef):
            yield node.name.value, node
        elif isinstance(node, cst.ClassDef):
            for member in node.body.body:
                if isinstance(member, cst.FunctionDef):
                    name = member.name.value
                    if name not in {"__repr__", "__str__"}:
                        yield f"{node.name.value}.{name}", member


Change = tuple[cst.CSTNode | None, cst.CSTNode, cst.CSTNode]
"""The statement in which a node is replaced, if it is a simple one, the node, and the new one."""


def _changes(node: cst.CSTNode, within: cst.CSTNode | None) -> Iterator[Change]:
    if isinstance(node, NOISE) or _is_text(node):
        return
    if isinstance(node, cst.SimpleStatementLine):
        within = node
    if _called(node) in LEFT_ALONE or _is_log(node):
        return
    for new in _replacements(node):
        yield within, node, new
    for child in _children(node):
        if not (isinstance(child, cst.Expr) and _is_log(child.value)):
            yield from _changes(child, within)


def _children(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
    if isinstance(node, cst.FunctionDef):
        return [node.body]  # neither decorators nor default values
    if _called(node) in TALKS:
        return []
    return node.children


def _replacements(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if _called(node) not in TALKS:
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                yield from (new for new in operator(node) if not _says_none_for_false(node, new))
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()
    plain = cst.Name | cst.Attribute | cst.Call | cst.Await
    if isinstance(node, cst.If | cst.While | cst.CompIf) and isinstance(node.test, plain):
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), node.test))


def _says_none_for_false(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Return whether `False` becomes `None`, which is the same to all that ask for the truth."""
    if isinstance(old, cst.Call) and isinstance(new, cst.Call) and len(old.args) == len(new.args):
        pairs = [(a.value, b.value) for a, b in zip(old.args, new.args, strict=True)]
    elif isinstance(old, cst.Assign) and isinstance(new, cst.Assign):
        pairs = [(old.value, new.value)]
    else:
        return False
    return any(_is_name(a, "False") and _is_name(b, "None") for a, b in pairs)


def _says_another_name(old: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Return whether what changes is the name of a thread or a task."""
    if not (isinstance(old, cst.Call) and isinstance(new, cst.Call)):
        return False
    kept = set(map(id, new.args))
    changed = [arg for arg in old.args if id(arg) not in kept]
    return any(arg.keyword is not None and arg.keyword.value == "name" for arg in changed)


def _is_name(node: cst.CSTNode, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _called(node: cst.CSTNode) -> str | None:
    """Return the last name of the function that a node calls, if it calls one by name."""
    function = node.func if isinstance(node, cst.Call) else None
    if isinstance(function, cst.Attribute):
        return function.attr.value
    return function.value if isinstance(function, cst.Name) else None


def _is_log(node: cst.CSTNode) -> bool:
    function = node.func if isinstance(node, cst.Call) else None
    return isinstance(function, cst.Attribute) and (
        isinstance(function.value, cst.Name) and function.value.value == "logger"
    )


def _is_text(node: cst.CSTNode) -> bool:
    """Return whether a string is for people, or for SQLite: one with a blank, or a docstring."""
    return isinstance(node, cst.SimpleString) and (" " in node.value or '"""' in node.value)
