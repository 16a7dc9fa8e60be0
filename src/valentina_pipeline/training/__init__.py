"""Training code that knows no medium: checkpoints, optimizers, schedules, processes."""
