"""Wiring of the stage `ingest`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.ingest import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Import authorized images; each rejected image has its reason in a report."""
    return pipeline(
        [
            node(
                nodes.ingest_images,
                inputs=[
                    "raw",
                    "extra_training_data",
                    "rights",
                    "project_root",
                    "params:concept",
                    "params:ingest",
                    "params:seed",
                ],
                outputs=[
                    "images",
                    "manifest",
                    "rejections",
                    "masks",
                    "extra_images",
                    "extra_manifest",
                    "extra_masks",
                ],
                name="ingest",
            )
        ]
    )
