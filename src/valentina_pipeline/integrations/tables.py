"""CSV tables that are safe in spreadsheet programs: no text is run as a formula."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""Start of a cell that a spreadsheet program would run as a formula, or that is already escaped."""


def escape_formula(value: Any) -> Any:
    """Return a cell for writing: put an apostrophe before a text that looks like a formula."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def unescape_formula(value: Any) -> Any:
    """Undo `escape_formula`."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and FORMULA.match(value) else value


def to_csv(table: "pd.DataFrame") -> bytes:
    """Return a table as CSV without its index, with escaped texts."""
    return str(_map_texts(table, escape_formula).to_csv(index=False, lineterminator="\n")).encode()


def from_csv(source: Any, **options: Any) -> "pd.DataFrame":
    """Read a table with `pandas.read_csv` and undo the escapes of `to_csv`."""
    import pandas as pd

    return _map_texts(pd.read_csv(source, **options), unescape_formula)


def _map_texts(table: "pd.DataFrame", change: Callable[[Any], Any]) -> "pd.DataFrame":
    """Apply `change` to the texts of a table; numbers keep their type, which sets their format."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    return table.assign(**{str(name): texts[name].map(change) for name in texts})
