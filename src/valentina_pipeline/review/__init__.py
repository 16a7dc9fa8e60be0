"""Review page: check the training images of a LoRA, reject images and correct captions."""
