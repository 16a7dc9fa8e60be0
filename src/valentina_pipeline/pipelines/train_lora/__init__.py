"""Train the LoRA; an interrupted run resumes and ends in byte-identical files."""

from valentina_pipeline.pipelines.train_lora.pipeline import create_pipeline

__all__ = ["create_pipeline"]
