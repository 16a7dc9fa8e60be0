"""Train the LoRA; a killed run goes on to the byte-identical result."""

from valentina_pipeline.pipelines.train_lora.pipeline import create_pipeline

__all__ = ["create_pipeline"]
