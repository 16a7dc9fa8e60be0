"""Outside tools, each known in one place: storage, MLflow, git and dvc.lock."""
