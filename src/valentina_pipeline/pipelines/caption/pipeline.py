"""Wiring of the stage `caption`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.caption import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Caption only what varies; the trigger word absorbs the character's fixed traits."""
    return pipeline(
        [
            node(
                nodes.caption_portraits,
                inputs=["descriptions", "faces", "manifest", "params:concept"],
                outputs=["captions", "caption_fields"],
                name="caption",
            ),
            node(
                nodes.describe_dataset,
                inputs=[
                    "aligned",
                    "faces",
                    "manifest",
                    "rejections",
                    "captions",
                    "caption_fields",
                    "rights",
                    "params:concept",
                ],
                outputs="dataset_card",
                name="dataset_card",
            ),
        ]
    )
