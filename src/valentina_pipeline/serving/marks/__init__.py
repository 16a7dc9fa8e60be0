"""Marks of generated images in files: Content Credentials and their detection."""
