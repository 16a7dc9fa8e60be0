"""`python -m valentina_pipeline.serving PACKAGE`: serve a package without a project."""

from valentina_pipeline.integrations.shutdown import end_in_order
from valentina_pipeline.serving.cli.serve import serve

if __name__ == "__main__":  # spawned processes import this module too
    end_in_order()
    serve()
