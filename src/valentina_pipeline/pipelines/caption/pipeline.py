"""Wiring of the stage `caption`."""

from kedro.pipeline import Pipeline, node, pipeline

from . import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Word what varies; the trigger takes on what is fixed."""
    return pipeline(
        [
            node(
                nodes.caption_portraits,
                inputs=["aligned", "faces", "manifest", "params:concept", "params:caption"],
                outputs="captions",
                name="caption",
            )
        ]
    )
