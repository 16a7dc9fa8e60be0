"""Wiring of the stage `train_lora`."""

from kedro.pipeline import Pipeline, node, pipeline

from valentina_pipeline.pipelines.train_lora import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Train the LoRA; a killed run goes on to the byte-identical result."""
    return pipeline(
        [
            node(
                nodes.train_adapter,
                inputs=[
                    "aligned",
                    "aligned_masks",
                    "faces",
                    "captions",
                    "manifest",
                    "rights",
                    "project_root",
                    "tiny_weights",
                    "extra_training_data",
                    "extra_images",
                    "extra_masks",
                    "extra_manifest",
                    "params:concept",
                    "params:base",
                    "params:train_lora",
                    "params:seed",
                    "params:num_threads",
                ],
                outputs=[
                    "lora",
                    "lora_steps",
                    "training_images",
                    "train_loss",
                    "validation_curve",
                    "train_metrics",
                    "class_images",
                ],
                name="train_lora",
            )
        ]
    )
