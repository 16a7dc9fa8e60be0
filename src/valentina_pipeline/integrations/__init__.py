"""Adapters to external tools: storage, MLflow, git and dvc.lock."""
