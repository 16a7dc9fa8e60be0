"""Kedro pipelines, a folder for each stage: `pipeline.py` wires the nodes, `nodes.py` parses and calls."""
