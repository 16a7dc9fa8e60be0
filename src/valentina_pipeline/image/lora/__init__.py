"""LoRA: adapters, file formats of any tool, merging."""
