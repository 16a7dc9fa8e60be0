"""Base models and the models that score images."""
