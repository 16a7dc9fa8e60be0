"""Fingerprints of code: words change none, a statement changes those of what imports it."""

from pathlib import Path

import pytest

from valentina_pipeline.common.code_fingerprint import (
    PACKAGE,
    SRC,
    fingerprint,
    import_closure,
    pipeline_module,
)
from valentina_pipeline.domain.concept import STAGE_NAMES
from valentina_pipeline.pipelines.register.package_contents import LOADER

FIRST, SECOND = pipeline_module("first"), pipeline_module("second")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A package with two stages: `first` imports a helper inside a function, `second` nothing."""
    package = tmp_path / "src" / PACKAGE
    files = {
        "__init__.py": '"""Only a docstring."""\n',
        "image/__init__.py": "",
        "image/helper.py": "from ..domain import names\n",
        "image/unused.py": "X = 1\n",
        "image/typed.py": "X = 1\n",
        "image/lists.py": "X = 1\n",
        "image/data/words.txt": "a word  # a comment\n",
        "domain/__init__.py": "from . import base\n",
        "domain/base.py": "class Base:\n    X = 1\n",
        "domain/names.py": f"import numpy\nimport {PACKAGE}.config as c\nLOADER = '{PACKAGE}.image.lists'\n",
        "config.py": "def f():\n    return 1\n",
        "pipelines/__init__.py": "",
        "pipelines/first/__init__.py": "from .pipeline import create_pipeline\n",
        "pipelines/first/pipeline.py": "from . import nodes\ncreate_pipeline = nodes.run\n",
        "pipelines/first/nodes.py": (
            "from typing import TYPE_CHECKING\n"
            f"if TYPE_CHECKING:\n    from {PACKAGE}.image import typed\n"
            f"def run():\n    from {PACKAGE}.image.helper import x\n"
        ),
        "pipelines/second/__init__.py": "",
        "pipelines/second/pipeline.py": "X = 1\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return tmp_path / "src"


def edited(src: Path, tmp_path: Path, name: str, text: str) -> tuple[str, str]:
    """Return both stages' fingerprints in a copy with another text in one file."""
    copy = tmp_path / "edited"
    for file in src.rglob("*.*"):
        target = copy / file.relative_to(src)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (copy / PACKAGE / name).write_text(text)
    return fingerprint(FIRST, src=copy), fingerprint(SECOND, src=copy)


def test_the_closure_has_lazy_imports_named_modules_and_lists_and_nothing_else(src: Path) -> None:
    names = [file.relative_to(src / PACKAGE).as_posix() for file in import_closure(FIRST, src=src)]
    assert names == [
        "__init__.py",
        "config.py",
        "domain/__init__.py",
        "domain/base.py",
        "domain/names.py",
        "image/__init__.py",
        "image/data/words.txt",
        "image/helper.py",
        "image/lists.py",
        "pipelines/__init__.py",
        "pipelines/first/__init__.py",
        "pipelines/first/nodes.py",
        "pipelines/first/pipeline.py",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.py", '"""A docstring."""\n\ndef f():  # a comment\n    """Return 1."""\n\n    return (1)\n'),
        ("domain/base.py", 'class Base:\n    """A base."""\n\n    X = 1\n    """A constant."""\n'),
        ("domain/__init__.py", f'"""{PACKAGE}.image.unused is named in words only."""\nfrom . import base\n'),
        ("image/data/words.txt", "# another comment\n\na word\n"),
        ("image/unused.py", "X = 2\n"),
        ("image/typed.py", "X = 2\n"),
    ],
)
def test_an_edit_of_words_or_of_what_nobody_imports_changes_nothing(
    src: Path, tmp_path: Path, name: str, text: str
) -> None:
    assert edited(src, tmp_path, name, text) == (fingerprint(FIRST, src=src), fingerprint(SECOND, src=src))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.py", "def f():\n    return 2\n"),
        ("domain/base.py", "class Base:\n    X = 2\n"),
        ("domain/base.py", "class Base:\n    X = '1'\n"),
        ("image/data/words.txt", "another word\n"),
        ("image/lists.py", ""),
    ],
)
def test_an_edited_statement_changes_what_imports_it_alone(
    src: Path, tmp_path: Path, name: str, text: str
) -> None:
    first, second = edited(src, tmp_path, name, text)
    assert first != fingerprint(FIRST, src=src)
    assert second == fingerprint(SECOND, src=src)


def test_what_serves_a_page_is_no_stage_s_code_and_what_a_package_loads_is() -> None:
    closures = {stage: set(import_closure(pipeline_module(stage))) for stage in STAGE_NAMES}

    def stages_of(name: str) -> list[str]:
        return [stage for stage in closures if SRC / PACKAGE / name in closures[stage]]

    assert stages_of("serving/api/app.py") == stages_of("review/app.py") == []
    assert stages_of("serving/inference/engine.py") == ["register"]
    assert stages_of("image/train/loop.py") == ["train_lora"]
    assert stages_of("image/caption/captioners.py") == ["describe"]
    assert stages_of("image/caption/dataset_card.py") == ["caption"]
    assert stages_of("image/evaluate/html_report.py") == ["report"]
    assert set(import_closure(LOADER)) <= closures["register"]
