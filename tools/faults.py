"""The small faults that are put into a file, one at a time: what each replaces, and the source with it."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Fault", "faults_of", "faulty_source"]

OTHERS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
BODIES = ("body", "orelse", "finalbody", "handlers")
TYPES = ("annotation", "returns", "decorator_list", "bases", "type_params")
CACHES = ("cache", "lru_cache")
SAFETY = ("strict", "overwrite_x", "dtype")
"""Keywords that guard, speed up or name what is right without them."""
ERRORS = ("InputError", "MatchError", "cast")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Parameters
    ----------
    path : Path
        The file.
    number : int
        Which of the file's faults.
    lines : (int, int)
        First and last line of the statement (of its head, where it has a body).
    loaded : bool
        Whether the statement is run once for all: when the module is loaded, or in a function that keeps its results.
    before, after : str
        The statement, without and with the fault.
    """

    path: Path
    number: int
    lines: tuple[int, int]
    loaded: bool
    before: str
    after: str


def faults_of(path: Path) -> list[Fault]:
    """Every fault of a file.

    Operators and comparisons are exchanged, whole numbers raised by one, other numbers doubled, truth values and
    conditions inverted, names in quotes altered, signs and negations dropped, calls left out whose value is not used,
    ``break`` and ``continue`` exchanged.  Docstrings, annotations, messages, logs, ``__all__``, assertions and
    ``strict=`` stay as they are.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for number, (slot, other) in enumerate(_changes(tree)):
        statement, before = slot.statement, _head(slot.statement)
        body = getattr(statement, "body", None)
        last = body[0].lineno - 1 if isinstance(body, list) else statement.end_lineno
        old = slot.put(other)
        after = _head(other if old is statement else statement)
        slot.put(old)
        found.append(Fault(path, number, (statement.lineno, max(last, statement.lineno)), slot.loaded, before, after))
    return found


def faulty_source(fault: Fault) -> str:
    """The file with the fault."""
    tree = ast.parse(fault.path.read_text(encoding="utf-8"))
    slot, other = next(change for k, change in enumerate(_changes(tree)) if k == fault.number)
    slot.put(other)
    return ast.unparse(ast.fix_missing_locations(tree))


@dataclass(frozen=True)
class _Slot:
    """The place of a node in its parent, with the statement that it belongs to."""

    parent: ast.AST
    name: str
    index: int | None
    statement: Any
    loaded: bool

    def put(self, node: ast.AST) -> ast.AST:
        """Put another node there; returns the one before."""
        value = getattr(self.parent, self.name)
        if self.index is None:
            setattr(self.parent, self.name, node)
            return value
        old, value[self.index] = value[self.index], node
        return old


def _head(statement: ast.AST) -> str:
    """A statement in one line, without its body."""
    short: Any = copy.copy(statement)
    for name in BODIES:
        if isinstance(getattr(short, name, None), list):
            setattr(short, name, [ast.Pass()] if name == "body" else [])
    short.decorator_list = []
    return " ".join(ast.unparse(ast.fix_missing_locations(short)).removesuffix("pass").split())


def _changes(tree: ast.Module) -> Iterator[tuple[_Slot, ast.AST]]:
    """Every place where something changes, and what is put there."""
    for slot, node in _nodes(tree, None, True):
        for other in _others(node):
            yield slot, other


def _nodes(parent: ast.AST, statement: ast.stmt | None, loaded: bool) -> Iterator[tuple[_Slot, ast.AST]]:
    for name, value in ast.iter_fields(parent):
        if name in TYPES and not isinstance(parent, ast.Call):
            continue
        inner = loaded
        if name == "body" and isinstance(parent, ast.FunctionDef | ast.Lambda):
            inner = any(ast.unparse(d).startswith(CACHES) for d in getattr(parent, "decorator_list", ()))
        for k, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(node, ast.AST) or _left_alone(node):
                continue
            owner = node if isinstance(node, ast.stmt) else statement
            if owner is not None:
                yield _Slot(parent, name, k, owner, inner), node
            yield from _nodes(node, owner, inner)


def _left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert | ast.JoinedStr):
        return True
    if isinstance(node, ast.If):
        return getattr(node.test, "id", "") == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        typed = isinstance(node.value, ast.Subscript) and getattr(node.value.value, "id", "") in ("Literal", "Callable")
        return typed or getattr(node.targets[0], "id", "") == "__all__"
    if isinstance(node, ast.Expr):
        return ast.unparse(node).startswith(("'", '"', "log.", "warnings.", "...", "object.__setattr__"))
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in ERRORS
    return isinstance(node, ast.keyword) and node.arg in SAFETY


def _others(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node, each once."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    if isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield from (_with(node, op=other()) for other in OTHERS.get(type(node.op), ()))
    if isinstance(node, ast.Compare):
        yield from (_with(node, ops=[other(), *node.ops[1:]]) for other in OTHERS[type(node.ops[0])])
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Constant):
        yield from (ast.Constant(other) for other in _constants(node.value))


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _constants(value: object) -> Iterator[bool | int | float | str]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield 2.0 * value or 1.0
    elif isinstance(value, str) and value.isidentifier():
        yield f"{value}_"
