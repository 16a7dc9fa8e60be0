"""Serving: the inference engine, the job queue, the HTTP API and the commands."""
