"""Marks of generated images: Content Credentials, and detection of all marks in files."""
