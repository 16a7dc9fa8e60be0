"""Generation: text to image, image to image, ControlNet."""
