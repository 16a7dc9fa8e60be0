"""`python -m valentina_pipeline.serving PACKAGE`: serve without a project."""

from valentina_pipeline.integrations.shutdown import end_in_order
from valentina_pipeline.serving.cli.serve import serve

if __name__ == "__main__":  # processes that it spawns import it too
    end_in_order()
    serve()
