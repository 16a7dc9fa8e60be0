"""Stage `train_lora`: samples, loss, trainer and loop."""
