"""Wiring of the stage `publish`."""

from kedro.pipeline import Pipeline, node, pipeline

from . import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Write the package that anyone can serve."""
    return pipeline(
        [
            node(
                nodes.publish_package,
                inputs=["lora", "metrics", "decision", "manifest", "weights", "grid", "params:concept", "params:base", "params:publish"],
                outputs="package",
                name="publish",
            )
        ]
    )
