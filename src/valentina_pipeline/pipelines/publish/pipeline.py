"""Wiring of the stage `publish`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.publish import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Deliver the package that register built."""
    return pipeline([node(nodes.publish_package, inputs="built_package", outputs="package", name="publish")])
