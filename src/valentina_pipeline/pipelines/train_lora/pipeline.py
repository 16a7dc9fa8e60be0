"""Wiring of the stage `train_lora`."""

from kedro.pipeline import Pipeline, node, pipeline

from . import nodes


def create_pipeline(**_: object) -> Pipeline:
    """Train the LoRA; a killed run goes on to the byte-identical result."""
    return pipeline(
        [
            node(
                nodes.train_adapter,
                inputs=[
                    "aligned",
                    "faces",
                    "captions",
                    "manifest",
                    "weights",
                    "params:concept",
                    "params:base",
                    "params:train_lora",
                    "params:seed",
                    "params:threads",
                ],
                outputs=["lora", "loss", "train_metrics"],
                name="train_lora",
            )
        ]
    )
