"""Wiring of the stage `evaluate`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.evaluate import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Measure identity, prompt following, diversity and memorization against the base model."""
    return pipeline(
        [
            node(
                nodes.evaluate_adapter,
                inputs=[
                    "lora",
                    "lora_steps",
                    "aligned",
                    "faces",
                    "captions",
                    "project_root",
                    "tiny_weights",
                    "tiny_judges",
                    "prompts",
                    "training_images",
                    "rights",
                    "params:concept",
                    "params:base",
                    "params:evaluate",
                    "params:seed",
                    "params:num_threads",
                ],
                outputs=[
                    "evaluation_images",
                    "image_scores",
                    "metrics",
                    "identity_plot",
                    "evaluation_notes",
                    "step_scores",
                ],
                name="evaluate",
            )
        ]
    )
