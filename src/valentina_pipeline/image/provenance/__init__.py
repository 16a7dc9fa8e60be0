"""Marks of generated images: metadata and watermark."""
