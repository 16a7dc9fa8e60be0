"""Recipe of the embedded base: training of the weights in tiny/weights from scratch."""
