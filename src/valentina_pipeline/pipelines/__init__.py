"""One folder for each stage: `pipeline.py` wires, `nodes.py` turns parameters into a call."""
