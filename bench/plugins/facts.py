"""What a plugin file says of itself, read from its syntax tree; nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BadInput, one_line
from bench.plugins.source_hash import parse, parts, relative_imports, source_hash
from bench.plugins.spelling import NAME, Param, Value

CLASS = {"cell": "Cell", "regularizer": "Regularizer"}
FOLDER = {"cell": "cells", "regularizer": "regularizers"}
OPEN = ("bench.api", "bench.products")
_FLAGS = {"memory": False, "mixes_batch": False, "eager_only": None, "coefficient": None}


@dataclass(frozen=True)
class Plugin:
    """One file of cells/ or regularizers/: its name is the file's stem.

    `broken` is the cause in one line when it cannot be used, else None. `flags` are the class
    attributes of the contract (memory, mixes_batch, eager_only, coefficient, needs).
    """

    kind: str
    name: str
    path: Path
    origin: str
    doc: str = ""
    params: tuple[Param, ...] = ()
    flags: dict[str, object] = field(default_factory=dict)
    hash: str = ""
    broken: str | None = None

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return self.doc.strip().split("\n")[0]

    @property
    def paper(self) -> str:
        """The citation in the paragraph that begins `Paper: `, without what it says after it."""
        for paragraph in re.split(r"\n\s*\n", self.doc.strip()):
            if paragraph.startswith("Paper: "):
                text = " ".join(paragraph.removeprefix("Paper: ").split())
                return re.split(r"(?<![A-Z])\.(?=\s+[A-Z])", text)[0].rstrip(".")
        return ""

    @property
    def coefficient(self) -> str | None:
        """The hyper-parameter that scales a regularizer."""
        value = self.flags.get("coefficient")
        return value if isinstance(value, str) else None

    @property
    def needs(self) -> tuple[str, ...]:
        """What a regularizer needs of a cell."""
        value = self.flags.get("needs", ())
        return value if isinstance(value, tuple) else ()


class _Broken(Exception):
    pass


def read(path: Path, kind: str, origin: str, own: str = "") -> Plugin:
    """Reads one plugin file; whatever is wrong with it becomes `broken`.

    `own` is the installed package that the file belongs to, which it must not import by name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its syntax; they come when it is imported
        return _read(Plugin(kind, path.stem, path, origin), own)


def _read(plugin: Plugin, own: str) -> Plugin:
    path, kind, origin = plugin.path, plugin.kind, plugin.origin
    try:
        if not NAME.fullmatch(path.stem):
            raise _Broken("its file name is no plugin name; use letters, digits, and . _ -")
        tree = parse(path)
        _check_imports(tree, path, own)
        node = _find_class(tree, CLASS[kind])
        params = _cell_params(node) if kind == "cell" else _regularizer_params(node)
        return Plugin(
            kind,
            path.stem,
            path,
            origin,
            ast.get_docstring(tree) or ast.get_docstring(node) or "",
            tuple(params),
            _flags(node, params),
            source_hash(path),
        )
    except SyntaxError as error:
        return _broken(plugin, f"{error.filename or path}:{error.lineno or 1}: {error.msg}")
    except (_Broken, OSError, ValueError) as error:
        return _broken(plugin, f"{path}: {error}")
    except (RecursionError, MemoryError):
        return _broken(plugin, f"{path}: its expressions are nested too deeply")


def _broken(plugin: Plugin, cause: str) -> Plugin:
    return Plugin(plugin.kind, plugin.name, plugin.path, plugin.origin, broken=one_line(cause, 300))


def _check_imports(tree: ast.Module, path: Path, own: str) -> None:
    _check_relative(tree, path)
    for file in parts(path):
        _check_relative(parse(file), file)
        # Only the top level: an import inside `try` or `if TYPE_CHECKING` may rightly be absent.
        for node in parse(file).body:
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "bench":
                names = [f"bench.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                _check_import(name, file, own)


def _check_relative(tree: ast.Module, path: Path) -> None:
    for node in relative_imports(tree):
        stems = [node.module] if node.module else [alias.name for alias in node.names]
        for stem in stems:
            if node.level > 1 or not stem.startswith("_"):
                raise _Broken(
                    f"{path.name} imports {'.' * node.level}{stem}; what is shared goes into a "
                    "part beside it, whose name begins with _"
                )
            if not (path.parent / f"{stem}.py").is_file():
                raise _Broken(f"imports {stem}.py, which is not beside it")


def _check_import(name: str, file: Path, own: str) -> None:
    root = name.split(".")[0]
    if root in FOLDER.values() or root == own:
        raise _Broken(f"{file.name} imports {root!r} by name; write `from ._part import …`")
    if root == "bench" and name not in OPEN:
        raise _Broken(f"{file.name} imports {name}; a plugin may import {' and '.join(OPEN)} alone")
    try:
        found = root == "bench" or importlib.util.find_spec(root) is not None
    except ValueError:  # a module without a spec, such as __main__
        found = True
    if not found:
        raise _Broken(f"{file.name} imports {root!r}, which is not installed")


def _find_class(tree: ast.Module, name: str) -> ast.ClassDef:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    found = ", ".join(n.name for n in tree.body if isinstance(n, ast.ClassDef)) or "no class"
    raise _Broken(f"must define a class called exactly {name}; it has {found}")


def _cell_params(node: ast.ClassDef) -> list[Param]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            positional = [a.arg for a in item.args.posonlyargs + item.args.args]
            if positional[1:] != ["input_size", "hidden_size"]:
                raise _Broken(
                    "Cell.__init__ must take (self, input_size, hidden_size, *, hyper-parameters), "
                    f"not ({', '.join(positional)})"
                )
            if item.args.vararg or item.args.kwarg:
                raise _Broken("Cell.__init__ must name each hyper-parameter, without * and **")
            pairs = zip(item.args.kwonlyargs, item.args.kw_defaults, strict=True)
            return [_param(arg.arg, arg.annotation, default) for arg, default in pairs]
    raise _Broken("Cell has no __init__(self, input_size, hidden_size, *, hyper-parameters)")


def _regularizer_params(node: ast.ClassDef) -> list[Param]:
    return [
        _param(item.target.id, item.annotation, item.value)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not ast.unparse(item.annotation).split("[")[0].endswith("ClassVar")
    ]


def _param(name: str, annotation: ast.expr | None, default: ast.expr | None) -> Param:
    if default is None:
        raise _Broken(f"hyper-parameter {name} has no default")
    value: Value = _literal(default, f"hyper-parameter {name}: its default")
    text = ast.unparse(annotation) if annotation else ""
    if text in ("int", "float", "bool", "str"):
        param = Param(name, text, value)
    elif isinstance(annotation, ast.Subscript) and text.split("[")[0].endswith("Literal"):
        items = annotation.slice
        nodes = items.elts if isinstance(items, ast.Tuple) else [items]
        choices = tuple(_literal(n, f"hyper-parameter {name}: each choice") for n in nodes)
        param = Param(name, "choice", value, choices)
    else:
        raise _Broken(
            f"hyper-parameter {name}: annotate it int, float, bool, str or Literal[...], "
            f"not {text or 'nothing'}"
        )
    try:
        return Param(name, param.type, param.coerce(value, "its default"), param.choices)
    except BadInput as error:
        raise _Broken(str(error)) from None


def _literal(node: ast.expr, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise _Broken(f"{what} must be a literal") from None


def _flags(node: ast.ClassDef, params: list[Param]) -> dict[str, object]:
    flags: dict[str, object] = dict(_FLAGS) | {"needs": ()}
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            targets: list[ast.expr] = [item.target]
        elif isinstance(item, ast.Assign):
            targets = item.targets
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in flags and item.value is not None:
                flags[target.id] = _literal(item.value, target.id)
    needs, scale = flags["needs"], flags["coefficient"]
    if not isinstance(needs, tuple) or not set(needs) <= {"memory"}:
        raise _Broken(f'needs must be () or ("memory",), not {needs!r}')
    if scale is not None and scale not in [p.name for p in params if p.type in ("int", "float")]:
        raise _Broken(f"coefficient names {scale!r}, which is no number among its fields")
    return flags
