"""Wiring of the stage `report`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.report import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Lay out the evaluation's images and scores as a comparison grid and an HTML page."""
    return pipeline(
        [
            node(
                nodes.report_evaluation,
                inputs=[
                    "evaluation_images",
                    "image_scores",
                    "metrics",
                    "evaluation_notes",
                    "step_scores",
                    "aligned",
                    "faces",
                    "captions",
                    "prompts",
                    "params:concept.name",
                    "params:evaluate",
                ],
                outputs=["comparison_grid", "report"],
                name="report",
            )
        ]
    )
