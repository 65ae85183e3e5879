"""Syntax trees of Python modules, for digests: what counts in them, and what each definition uses."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Definition",
    "absolute_origin",
    "find_definitions",
    "imported_modules",
    "read_tree",
    "registers",
    "simplify",
]

WITHOUT_EFFECT = ("ctx", "kind", "type_comment")  # fields of syntax trees: implied by others, or a matter of style
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# with these, code may use what it does not name
DYNAMIC_NAMES = {"globals", "locals", "vars", "exec", "eval", "compile", "__import__", "__builtins__"}
DYNAMIC_ATTRIBUTES = {"__dict__", "__globals__", "f_globals", "ops", "library"}  # torch.ops, torch.library
DYNAMIC_MODULES = {"*", "sys", "importlib", "builtins", "gc"}
REGISTRATION = {"__init_subclass__", "__subclasses__", "__set_name__", "metaclass"}  # of classes that nobody names
# what may be called while a module is imported, since it changes nothing elsewhere
KNOWN_LIBRARIES = {*sys.stdlib_module_names, "numpy", "scipy", "speechbrain", "torch", "torchaudio", "transformers"}
HARMLESS = {
    *"abs bool bytes complex dict float frozenset int len list max min object range round set slice sorted".split(),
    *"str sum super tuple zip split join format array asarray arange as_tensor tensor linspace logspace".split(),
    *"zeros ones full eye hann_window hamming_window finfo iinfo log log2 log10 sqrt exp pow ceil floor".split(),
    *"device dtype Path resolve absolute getLogger TypeVar NewType namedtuple field partial compile".split(),
    *"property setter getter deleter staticmethod classmethod abstractmethod dataclass wraps cache lru_cache".split(),
    *"cached_property contextmanager no_grad inference_mode enable_grad autocast custom_fwd custom_bwd".split(),
    *"once_differentiable final override overload total_ordering unique".split(),
}


@dataclass
class Definition:
    """What a name of a module stands for."""

    code: list = field(default_factory=list)  # the statements that bind it, as JSON
    names: set[str] = field(default_factory=set)  # other names of the module that they may use
    imports: list[tuple[str, str | None]] = field(default_factory=list)  # modules and names; None: the whole module
    is_import: bool = False  # whether it is bound by an import statement


def read_tree(file: str) -> ast.Module | None:
    """Return the syntax tree of a file, not to be changed; None if it is compiled or not valid Python."""
    return _parse(Path(file).read_bytes())


@functools.lru_cache(maxsize=1024)  # a comparison reads the same plugins for each of its runs
def _parse(source: bytes) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def simplify(value: Any) -> Any:
    """Return a syntax tree without docstrings as JSON; unlike ``ast.dump`` the same in every version of Python."""
    if isinstance(value, list):
        return [simplify(item) for item in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = {name: content for name, content in ast.iter_fields(value) if name not in WITHOUT_EFFECT}
    if isinstance(value, DOCUMENTED) and ast.get_docstring(value, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    present = {name: simplify(content) for name, content in fields.items() if content is not None and content != []}
    return [type(value).__name__, present]


def absolute_origin(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of the module in ``from ... import``."""
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])


def imported_modules(tree: ast.Module, package: str) -> list[str]:
    """Return all modules that are imported anywhere, and what may be modules in ``from ... import``."""
    names = []
    for module, attribute in _imports(ast.walk(tree), package):
        names += [module] if attribute is None else [module, f"{module}.{attribute}"]
    return names


def registers(tree: ast.Module) -> bool:
    """Return whether a module keeps lists of classes that others define."""
    for node in ast.walk(tree):
        named = (getattr(node, "name", None), getattr(node, "attr", None), getattr(node, "arg", None))
        if not REGISTRATION.isdisjoint(named):
            return True
    return False


def find_definitions(tree: ast.Module, package: str) -> dict[str, Definition] | None:
    """Return what each name of a module stands for; None where that cannot be told from its syntax.

    It can if importing the module runs nothing but imports, definitions and assignments of plain values, and no code
    looks names up while it runs (``globals()``, ``exec``, ``sys.modules``, a star import, ...).
    """
    statements = [node for node in tree.body if not _is_skipped(node)]
    foreign = _foreign_names(statements)
    if not all(_is_plain(node, foreign) for node in statements) or any(map(_is_dynamic, ast.walk(tree))):
        return None
    found: dict[str, Definition] = {}
    for node in statements:
        for name in _bound(node):
            definition = found.setdefault(name, Definition())
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                aliases = [alias for alias in node.names if _name_of(alias) == name]
                imports = list(_imports([_with_names(node, aliases)], package, parents=True))
                definition.code.append([list(pair) for pair in imports])
                definition.is_import = True
            else:
                imports = _imports(ast.walk(node), package, parents=True)
                definition.code.append(simplify(node))
                definition.names.update(_used(node))
            definition.imports += imports
    return found


def _name_of(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _with_names(node: ast.Import | ast.ImportFrom, aliases: list[ast.alias]) -> ast.Import | ast.ImportFrom:
    return ast.Import(aliases) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, aliases, node.level)


def _foreign_names(statements: list[ast.stmt]) -> set[str]:
    """Return the names of a module that may stand for code of the user."""
    names = set()
    for node in statements:
        if isinstance(node, ast.Import):
            names.update(_name_of(a) for a in node.names if a.name.partition(".")[0] not in KNOWN_LIBRARIES)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] in KNOWN_LIBRARIES:
            continue
        else:
            names.update(_bound(node))
    return names


def _imports(nodes: Iterable[ast.AST], package: str, *, parents: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield module and attribute of import statements; with ``parents`` also ``a`` and ``a.b`` of ``import a.b.c``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                first = 1 if parents and not alias.asname else len(parts)
                yield from ((".".join(parts[:n]), None) for n in range(first, len(parts) + 1))
        elif isinstance(node, ast.ImportFrom):
            origin = absolute_origin(node, package)
            yield from ((origin, alias.name) for alias in node.names)


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return list(dict.fromkeys(map(_name_of, node.names)))
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def _used(node: ast.AST) -> Iterator[str]:
    """Yield all names in a statement, and texts that may be names."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _is_skipped(node: ast.stmt) -> bool:
    """Return whether a statement does nothing in a module that is imported."""
    if isinstance(node, ast.If) and not node.orelse:
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_plain(node: ast.stmt, foreign: set[str]) -> bool:
    """Return whether executing a statement changes nothing but the names that it binds."""
    decorators = getattr(node, "decorator_list", [])
    if not all(_is_harmless_call(each.func if isinstance(each, ast.Call) else each, foreign) for each in decorators):
        return False
    body, evaluated, targets = [], [*decorators], []
    if isinstance(node, FUNCTIONS):
        evaluated += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
    elif isinstance(node, ast.ClassDef):
        evaluated += [*node.bases, *(keyword.value for keyword in node.keywords)]
        body = [each for each in node.body if not _is_skipped(each)]
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        evaluated += [node.value] if node.value is not None else []
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    elif not isinstance(node, (ast.Import, ast.ImportFrom)):
        return False
    return (
        all(_is_plain(each, foreign) for each in body)
        and all(_is_harmless(each, foreign) for each in evaluated)
        and not any(isinstance(each, (ast.Attribute, ast.Subscript)) for t in targets for each in ast.walk(t))
    )


def _is_harmless(expression: ast.expr, foreign: set[str]) -> bool:
    """Return whether evaluating an expression changes nothing."""
    for node in ast.walk(expression):
        if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)):
            return False
        if isinstance(node, ast.Call) and not _is_harmless_call(node.func, foreign):
            return False
    return True


def _is_harmless_call(function: ast.expr, foreign: set[str]) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    while isinstance(function, (ast.Attribute, ast.Call)):
        function = function.value if isinstance(function, ast.Attribute) else function.func
    return name in HARMLESS and getattr(function, "id", None) not in foreign


def _is_dynamic(node: ast.AST) -> bool:
    """Return whether a node may look up names that are not in the syntax tree."""
    if isinstance(node, ast.Name):
        return node.id in DYNAMIC_NAMES
    if isinstance(node, ast.Attribute):
        return node.attr in DYNAMIC_ATTRIBUTES
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = {alias.name.partition(".")[0] for alias in node.names}
        return not DYNAMIC_MODULES.isdisjoint({*names, (getattr(node, "module", None) or "").partition(".")[0]})
    return isinstance(node, ast.Global) or (isinstance(node, FUNCTIONS) and node.name == "__getattr__")
