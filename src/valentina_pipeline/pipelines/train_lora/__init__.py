"""Train the LoRA; a killed run goes on to the byte-identical result."""

from .pipeline import create_pipeline

__all__ = ["create_pipeline"]
