"""Helpers that know nothing of images, voices or tools."""
