"""Entry point: `python -m valentina_pipeline ...` runs `kedro ...` where scripts are not on PATH."""

from kedro.framework.cli.cli import main

if __name__ == "__main__":
    main()
