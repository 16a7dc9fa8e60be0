"""CSV tables that spreadsheet programs open, too: no text of theirs is taken for a formula."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What a cell begins with that a spreadsheet program would run, or that is escaped already."""


def escape_formula(value: Any) -> Any:
    """Return a cell as it is written: a text that looks like a formula has an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def unescape_formula(value: Any) -> Any:
    """Return a cell as it was before `escape_formula`."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and FORMULA.match(value) else value


def to_csv(table: "pd.DataFrame") -> bytes:
    """Return a table as CSV, its texts escaped, without its index."""
    return str(_changed(table, escape_formula).to_csv(index=False, lineterminator="\n")).encode()


def from_csv(source: Any, **how: Any) -> "pd.DataFrame":
    """Return what `pandas.read_csv` reads, its texts as they were before `to_csv`."""
    import pandas as pd

    return _changed(pd.read_csv(source, **how), unescape_formula)


def _changed(table: "pd.DataFrame", change: Callable[[Any], Any]) -> "pd.DataFrame":
    """Return the table with its texts changed; numbers keep their type, by which they are written."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    return table.assign(**{str(name): texts[name].map(change) for name in texts})
