"""The recipe of the tiny world: how the weights in tiny/weights were made, from nothing."""
