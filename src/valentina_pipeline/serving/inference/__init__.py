"""Inference code that is bundled in each package. It reads only a published package and LoRAs."""
