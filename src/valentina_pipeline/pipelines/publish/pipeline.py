"""Wiring of the stage `publish`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.publish import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Write the package that serves the character."""
    return pipeline(
        [
            node(
                nodes.publish_package,
                inputs=[
                    "decision",
                    "lora",
                    "metrics",
                    "train_metrics",
                    "faces",
                    "training_images",
                    "rights",
                    "tiny_weights",
                    "comparison_grid",
                    "scenes",
                    "params:concept",
                    "params:base",
                    "params:train_lora",
                    "params:evaluate",
                    "params:publish",
                ],
                outputs="package",
                name="publish",
            )
        ]
    )
