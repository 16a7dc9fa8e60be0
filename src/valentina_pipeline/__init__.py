"""Valentina Pipeline: train, evaluate, register, package and serve a LoRA of a virtual character."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # turn off ONNX Runtime's telemetry
