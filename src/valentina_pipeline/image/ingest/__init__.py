"""Stage `ingest`: from source files to accepted images."""
