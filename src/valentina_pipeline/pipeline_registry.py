"""Registry of the pipelines, in the order in which they run."""

from click import ClickException
from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

from valentina_pipeline.domain.concept import STAGE_NAMES

PIPELINES = (*STAGE_NAMES, "record")
"""Names of the pipelines in Kedro and DVC; each is a folder of `pipelines/`."""


def register_pipelines() -> dict[str, Pipeline]:
    """Return the requested pipelines (`--pipelines X` imports only X's folder) and `__default__`, their sum.

    Raises:
        ClickException: a requested name is not in `PIPELINES`.
    """
    try:
        found = find_pipelines(raise_errors=True, pipelines_to_find=list(PIPELINES))
    except ImportError as err:
        if err.__cause__ is not None:  # an import inside a pipeline failed: keep that traceback
            raise
        raise ClickException(f"unknown pipeline; choose from {', '.join(PIPELINES)}") from err
    ordered = {name: found[name] for name in PIPELINES if name in found}
    return ordered | {"__default__": sum(ordered.values(), start=Pipeline([]))}
