"""Faces: detection, embedding, crops, similarity."""
