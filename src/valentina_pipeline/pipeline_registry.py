"""Which pipelines there are, in the order in which they run."""

from click import ClickException
from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

PIPELINES = ("ingest", "align", "caption", "train_lora", "evaluate", "register", "publish", "record")
"""The same names in Kedro and in DVC; each is a folder of `pipelines/`."""


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines asked for (`--pipelines X` imports only X's folder); `__default__` is all.

    Raises:
        ClickException: a name was asked for that is not in `PIPELINES`.
    """
    try:
        found = find_pipelines(raise_errors=True, pipelines_to_find=list(PIPELINES))
    except ImportError as err:
        if err.__cause__ is not None:  # a pipeline's own import failed: that trace says where
            raise
        raise ClickException(f"there is no such pipeline; there are {', '.join(PIPELINES)}") from err
    ordered = {name: found[name] for name in PIPELINES if name in found}
    return ordered | {"__default__": sum(ordered.values(), start=Pipeline([]))}
