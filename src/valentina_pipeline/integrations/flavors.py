"""MLflow model files of a package: pyfunc and diffusers flavors."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from valentina_pipeline.integrations.mlflow import configure_mlflow

REQUIREMENTS = (
    "accelerate",
    "anyascii",
    "confusable-homoglyphs",
    "diffusers",
    "mlflow",
    "nudenet",
    "numba",
    "numpy",
    "onnxruntime",
    "pandas",
    "peft",
    "pillow",
    "pydantic",
    "rapidfuzz",
    "safetensors",
    "torch",
    "transformers",
)
"""Requirements for serving a package."""

MODEL_FILES = (
    "MLmodel",
    "conda.yaml",
    "input_example.json",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
)
"""Files kept of a saved MLflow model, without the copied uv project of the working directory."""

PYTHON_ENV = b"""python: '3.11'
build_dependencies:
- pip
dependencies:
- -r requirements.txt
"""


def model_files(loader: str, base: str, example: Mapping[str, Any], identity: str) -> dict[str, bytes]:
    """Return the files that make a package's folder an MLflow model of two flavors.

    pyfunc: `loader`, a module under code/, has `_load_pyfunc(folder)`; no pickle. diffusers: the LoRA in
    lora/ for the base model. The same arguments give the same bytes.

    Args:
        loader: dotted name.
        base: the base model's hub id or folder.
        example: one row of input: prompt, seed, preset.
        identity: hex; replaces the model id that MLflow would generate at random.
    """
    configure_mlflow()
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    # its warnings concern the uv project and pip of the working directory, which are left out
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="model-"))
    try:
        mlflow.pyfunc.save_model(
            path=folder,
            loader_module=loader,
            signature=_signature(),
            input_example=pd.DataFrame([dict(example)]),
            pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(utc_time_created="1970-01-01 00:00:00", model_uuid=identity[:32]),
        )
        files = {name: (folder / name).read_bytes() for name in MODEL_FILES}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **files,
        "MLmodel": _add_flavors(files["MLmodel"], base),
        # the patch release of Python and the version of pip depend on the machine
        "python_env.yaml": PYTHON_ENV,
        "conda.yaml": files["conda.yaml"].replace(_python_patch(), b"python=3.11"),
    }


def _add_flavors(mlmodel: bytes, base: str) -> bytes:
    import yaml

    model = yaml.safe_load(mlmodel)
    model.pop("model_size_bytes", None)
    model["flavors"]["python_function"] |= {"code": "code", "python_version": "3.11"}
    model["flavors"]["diffusers"] = {
        "base_model": base,
        "adapter_type": "lora",
        "adapter_weights": "lora",
        "weight_name": "pytorch_lora_weights.safetensors",
        "diffusers_version": installed("diffusers"),
        "code": "code",
    }
    return yaml.safe_dump(model, sort_keys=True).encode()


def _python_patch() -> bytes:
    import platform

    return f"python={platform.python_version()}".encode()


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    optional = [ColSpec("long", "seed", required=False), ColSpec("string", "preset", required=False)]
    texts = ("image", "prompt", "preset", "blocked_reason")
    outputs = [ColSpec("string", name) for name in texts] + [ColSpec("long", "seed")]
    identity = ColSpec("double", "identity", required=False)
    return ModelSignature(Schema([ColSpec("string", "prompt"), *optional]), Schema([*outputs, identity]))
