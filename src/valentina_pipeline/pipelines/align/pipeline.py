"""Wiring of the stage `align`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.align import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Detect the one face of each image, level it and crop it to the base model's resolution."""
    return pipeline(
        [
            node(
                nodes.align_portraits,
                inputs=[
                    "images",
                    "masks",
                    "manifest",
                    "project_root",
                    "tiny_weights",
                    "params:align",
                    "params:base.face_embedder",
                ],
                outputs=["aligned", "faces", "alignment_overview", "aligned_masks"],
                name="align",
            ),
            node(nodes.check_portraits, inputs=["faces", "manifest"], outputs=None, name="check_portraits"),
        ]
    )
