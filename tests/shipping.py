"""Which modules of this project some code imports, read from its syntax."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src"


def imported_modules(files: Iterable[Path]) -> set[str]:
    """Return the files, relative to src, that these modules import directly; other files import nothing."""
    names: set[str] = set()
    for file in (file for file in files if file.suffix == ".py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    own = (ROOT / Path(*name.split(".")) for name in names if name.startswith("valentina_pipeline"))
    found = (each for place in own for each in (place / "__init__.py", place.with_suffix(".py")))
    return {file.relative_to(ROOT).as_posix() for file in found if file.is_file()}
