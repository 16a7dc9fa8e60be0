"""Fingerprint of code: a hash over the syntax trees of everything that a module imports.

Comments, docstrings and layout do not count, so that an edit of them changes no fingerprint. Syntax trees
depend on the version of Python, which pyproject.toml pins.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = __package__.partition(".")[0]
SRC = Path(__file__).parents[2]


def pipeline_module(stage: str) -> str:
    """Return the full name of the module that defines a stage's pipeline."""
    return f"{PACKAGE}.pipelines.{stage}.pipeline"


def fingerprint(*modules: str, src: Path = SRC) -> str:
    """Return the sha256 over the code of modules of this package and of all their imports.

    Args:
        modules: full names, such as `valentina_pipeline.image.ingest`.
        src: folder that contains the package.
    """
    total = hashlib.sha256()
    for file in import_closure(*modules, src=src):
        total.update(f"{file.relative_to(src).as_posix()} {_file_hash(file)}\n".encode())
    return total.hexdigest()


def import_closure(*modules: str, src: Path = SRC) -> list[Path]:
    """Return the files of this package that the modules can import or read, sorted.

    Imports are read from the syntax tree, so that imports inside functions count and nothing runs. Imports
    for type checkers only do not count. A module named in a string, such as MLflow's `loader_module`, counts
    as imported.
    Text files in the folder `data` next to a module are part of its code.
    """
    todo = [file for module in modules for file in _module_files(module, src)]
    visited = set[Path]()
    while todo:
        file = todo.pop()
        if file not in visited:
            visited.add(file)
            todo.extend(file for module in _imports(file, src) for file in _module_files(module, src))
    texts = {text for file in visited for text in (file.parent / "data").glob("*.txt")}
    return sorted(visited | texts)


@lru_cache(maxsize=1024)
def _syntax_tree(file: Path) -> ast.AST:
    """Return a module's syntax tree without docstrings; callers must not change it."""
    return _strip_docstrings(ast.parse(file.read_bytes()))


@lru_cache(maxsize=1024)
def _file_hash(file: Path) -> str:
    if file.suffix == ".py":
        content = ast.dump(_syntax_tree(file))
    else:
        lines = (line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines())
        content = "\n".join(filter(None, lines))
    return hashlib.sha256(content.encode()).hexdigest()


def _strip_docstrings(tree: ast.Module) -> ast.Module:
    """Remove docstrings and other string statements from a tree, in place; expressions hold no statements."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                kept = [each for each in statements if not _is_text(each)]
                setattr(node, name, kept)
                todo.extend(kept)
    return tree


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@lru_cache(maxsize=1024)
def _imports(file: Path, src: Path) -> frozenset[str]:
    """Return the full names that a file may import: modules, and names inside modules."""
    if file.suffix != ".py":
        return frozenset()
    return frozenset(_imported_names(_syntax_tree(file), file.relative_to(src).parent.parts))


def _imported_names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE}."):
            yield str(node.value)


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree's nodes except those under `if TYPE_CHECKING`."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo.extend(node.orelse)
        else:
            todo.extend(ast.iter_child_nodes(node))


def _module_files(module: str, src: Path) -> Iterable[Path]:
    """Return the files that run on import of a module: its own and its parents'."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return []
    places = [src.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    files = (file for place in places for file in (place / "__init__.py", place.with_suffix(".py")))
    return [file for file in files if file.is_file()]
