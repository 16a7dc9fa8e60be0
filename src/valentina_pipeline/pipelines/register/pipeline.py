"""Wiring of the stage `register`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.register import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Decide by the gates whether the candidate becomes champion; build and register its package."""
    return pipeline(
        [
            node(
                nodes.register_candidate,
                inputs=[
                    "params:register",
                    "lora",
                    "metrics",
                    "train_metrics",
                    "faces",
                    "training_images",
                    "rights",
                    "project_root",
                    "tiny_weights",
                    "comparison_grid",
                    "scenes",
                    "tiny_judges",
                    "params:concept",
                    "params:base",
                    "params:train_lora",
                    "params:evaluate",
                    "params:publish",
                ],
                outputs=["decision", "built_package"],
                name="register",
            )
        ]
    )
