"""Wiring of the stage `describe`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.describe import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Describe each portrait in fields; `caption` words them without the captioning model."""
    return pipeline(
        [
            node(
                nodes.describe_portraits,
                inputs=["aligned", "faces", "manifest", "params:concept.class_word", "params:caption"],
                outputs="descriptions",
                name="describe",
            )
        ]
    )
