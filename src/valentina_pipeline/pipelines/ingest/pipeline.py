"""Wiring of the stage `ingest`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.ingest import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Take in authorised images; every image left out has its reason."""
    return pipeline(
        [
            node(
                nodes.ingest_images,
                inputs=["raw", "rights", "params:concept", "params:ingest", "params:seed"],
                outputs=["images", "manifest", "rejections", "masks"],
                name="ingest",
            )
        ]
    )
