"""`python -m valentina_pipeline.serving PACKAGE`: serve without a project."""

from valentina_pipeline.integrations.ending import end_in_order
from valentina_pipeline.serving.command import serve

if __name__ == "__main__":  # processes that it spawns import it too
    end_in_order()
    serve()
