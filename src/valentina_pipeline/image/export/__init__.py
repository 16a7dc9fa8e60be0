"""Export of a LoRA and its base to other formats."""
