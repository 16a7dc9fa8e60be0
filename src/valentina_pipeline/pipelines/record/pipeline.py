"""Wiring of the stage `record`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.record import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Complete the tracked run, including stages restored from the cache, and print the metrics."""
    return pipeline(
        [
            node(
                nodes.record_run,
                inputs=[
                    "metrics",
                    "train_metrics",
                    "training_images",
                    "decision",
                    "package",
                    "project_root",
                    "params:concept",
                    "params:base",
                ],
                outputs=None,
                name="record",
            )
        ]
    )
