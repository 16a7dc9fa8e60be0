"""Generation: sampling, image to image, ControlNet."""
