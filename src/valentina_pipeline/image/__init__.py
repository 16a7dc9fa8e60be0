"""The work on images: from taking them in to judging what a LoRA draws."""
