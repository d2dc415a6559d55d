"""What a plugin file says of itself, read from its syntax tree; nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import one_line
from bench.plugins.source_hash import imported_parts, source_hash
from bench.plugins.spelling import NAME, Param, Value

CLASS = {"cell": "Cell", "regularizer": "Regularizer"}
FOLDER = {"cell": "cells", "regularizer": "regularizers"}
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


def read(path: Path, kind: str, origin: str) -> Plugin:
    """Reads one plugin file; whatever is wrong with it becomes `broken`."""
    plugin = Plugin(kind, path.stem, path, origin)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        return _broken(plugin, f"{path}:{error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        return _broken(plugin, f"{path}: {error}")
    try:
        if not NAME.fullmatch(path.stem):
            raise _Broken("its file name is no plugin name; use letters, digits, and . _ -")
        _check_imports(tree, path)
        node = _find_class(tree, CLASS[kind])
        params = _cell_params(node) if kind == "cell" else _regularizer_params(node)
        return Plugin(
            kind,
            path.stem,
            path,
            origin,
            ast.get_docstring(tree) or ast.get_docstring(node) or "",
            tuple(params),
            _flags(node),
            source_hash(path),
        )
    except (_Broken, SyntaxError, OSError) as error:
        return _broken(plugin, f"{path}: {error}")


def _broken(plugin: Plugin, cause: str) -> Plugin:
    return Plugin(
        plugin.kind, plugin.name, plugin.path, plugin.origin, broken=one_line(cause, 300)
    )


def _check_imports(tree: ast.Module, path: Path) -> None:
    # Only imports at the top level: one inside `try` or `if TYPE_CHECKING` may rightly be absent.
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            root = name.split(".")[0]
            if root != "bench" and importlib.util.find_spec(root) is None:
                raise _Broken(f"imports {root!r}, which is not installed")
    for stem in imported_parts(tree):
        if not (path.parent / f"{stem}.py").is_file():
            raise _Broken(f"imports {stem}.py, which is not beside it")


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
    try:
        value: Value = ast.literal_eval(default)
    except ValueError:
        raise _Broken(f"hyper-parameter {name}: its default must be a literal") from None
    text = ast.unparse(annotation) if annotation else ""
    if text in ("int", "float", "bool", "str"):
        param = Param(name, text, value)
    elif isinstance(annotation, ast.Subscript) and text.split("[")[0].endswith("Literal"):
        items = annotation.slice
        nodes = items.elts if isinstance(items, ast.Tuple) else [items]
        param = Param(name, "choice", value, tuple(ast.literal_eval(n) for n in nodes))
    else:
        raise _Broken(
            f"hyper-parameter {name}: annotate it int, float, bool, str or Literal[...], "
            f"not {text or 'nothing'}"
        )
    try:
        return Param(name, param.type, param.coerce(value, "default"), param.choices)
    except Exception as error:
        raise _Broken(f"hyper-parameter {name}: {error}") from None


def _flags(node: ast.ClassDef) -> dict[str, object]:
    flags: dict[str, object] = dict(_FLAGS) | {"needs": ()}
    for item in node.body:
        target = item.target if isinstance(item, ast.AnnAssign) else None
        if isinstance(item, ast.Assign) and len(item.targets) == 1:
            target = item.targets[0]
        if isinstance(target, ast.Name) and target.id in flags:
            value = item.value  # type: ignore[attr-defined]
            try:
                flags[target.id] = ast.literal_eval(value) if value else None
            except ValueError:
                raise _Broken(f"{target.id} must be a literal") from None
    return flags
