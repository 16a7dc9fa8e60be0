"""Command `kedro new-concept`: write a character's settings and rights ledger from flags or answers."""

import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import click
from kedro.framework.startup import ProjectMetadata

FLAGS = {"class_word": "--class-word", "synthetic": "--synthetic or --not-synthetic"}
"""Flags that are not named as their field."""

QUESTIONS = {
    "source": "Source of the images: renderer (draws a fictional woman), a folder, a .zip, a video, "
    "s3://bucket/prefix or https://list",
    "holder": "Holder of the rights to the images",
    "name": "Name of the character",
    "class_word": "Class word, as a caption would call the character: woman, man or person",
    "description": "Fixed traits in words, such as: oval face, gray eyes, short red hair",
    "adult": "Is the character an adult?",
    "synthetic": "Are the images synthetic, that is, rendered or generated?",
    "license": "License of the images, such as CC-BY-4.0 or proprietary",
    "uses": "Permitted uses",
    "expires": "Last valid day of the permission (YYYY-MM-DD or never)",
    "evidence": "Evidence of the permission, such as: contract of 2026-05-01",
}
"""Field of the concept or of the record -> question at a terminal, in order."""

OFFERED = {"source": "renderer", "uses": "training, generation, publication"}
"""Answers that a question offers; without a terminal these fields must be given."""

RENDERED = ("class_word", "description", "synthetic", "evidence")
"""Fields that follow from the renderer as the source and cannot be given."""


@click.command()
@click.argument("trigger", metavar="NAME")
@click.option("--source", help="renderer, a folder, a .zip, a video, s3://bucket/prefix or https://list.")
@click.option("--holder", help="Holder of the rights to the images.")
@click.option("--name", help="The character's full name; default: made from NAME.")
@click.option("--class-word", help="Word that a caption would use: woman, man or person.")
@click.option("--description", help="The fixed traits in words: oval face, gray eyes, short red hair.")
@click.option("--adult", is_flag=True, default=None, help="Confirm that the character is an adult.")
@click.option("--synthetic/--not-synthetic", default=None, help="Are the images rendered or generated?")
@click.option("--license", help="License of the images: CC-BY-4.0, proprietary, ...")
@click.option("--uses", help="Permitted uses: training,generation,publication.")
@click.option("--expires", help="Last valid day of the permission, YYYY-MM-DD, or never (default).")
@click.option("--evidence", help="Evidence of the permission, such as the name of a contract.")
@click.option(
    "--evidence-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The signed document: its sha256 is recorded, the file is not copied.",
)
@click.option("--base", help="Its entry of conf/base/bases.yml; default: the `base` of params.yaml.")
@click.option("--add", is_flag=True, help="Also add NAME to `concepts` in params.yaml.")
@click.pass_obj
def new_concept(
    metadata: ProjectMetadata, /, trigger: str, add: bool, evidence_file: Path | None, **given: Any
) -> None:
    r"""Create the character NAME: its settings and the record of the rights to its images.

    NAME is the trigger word of prompts and the name of the files: lower case, digits and underscores,
    without a meaning (ada_lind, not rose). A terminal asks for each missing flag.

    \b
      kedro new-concept ada_lind
      kedro new-concept mira_sol --source renderer --holder "My Studio" --add
      kedro new-concept ada_lind --source ~/Pictures/ada --holder "Ada Lind" \
        --class-word woman --description "oval face, gray eyes, short red hair" --adult \
        --not-synthetic --license proprietary --uses training,generation \
        --evidence "contract of 2026-05-01" --evidence-file contract.pdf

    \b
    Writes conf/base/concepts/NAME.yml and conf/base/rights/NAME/, after validation: both or none. Never
    overwrites. Creates data/01_raw/NAME, whose images git ignores. Then prints the next commands.
    """
    from valentina_pipeline.cli import concept_files as files
    from valentina_pipeline.image.models.vocabulary import warn_of_word

    root = metadata.project_path
    _check_name(trigger)
    files.refuse_existing(root, trigger)
    if warning := warn_of_word(trigger):
        click.echo(warning, err=True)
    answers = _collect_answers(
        root, trigger, {key: value for key, value in given.items() if value is not None}
    )
    if evidence_file:
        answers["evidence_sha256"] = hashlib.sha256(evidence_file.read_bytes()).hexdigest()
    for line in files.create_concept(root, answers, add):
        click.echo(line)
    click.echo("next:")
    for number, step in enumerate(_next_steps(root, answers, add), start=1):
        click.echo(f"  {number}. {step}")


def _check_name(trigger: str) -> None:
    from valentina_pipeline.cli.concept_files import check_answer

    try:
        check_answer("trigger", trigger)
    except ValueError as err:
        raise click.ClickException(
            f"NAME {trigger!r}: must be 2 to 64 lower-case letters, digits and underscores, such as ada_lind"
        ) from err


def _collect_answers(root: Path, trigger: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all answers: from flags, from the renderer, then from questions or defaults."""
    from valentina_pipeline.cli import concept_files as files

    def read(key: str, value: Any) -> Any:
        value = value.strip() if isinstance(value, str) else value
        return files.locate_source(root, trigger, value) if key == "source" else _read_answer(key, value)

    answers: dict[str, Any] = {
        "trigger": trigger,
        **{key: _read_flag(key, value, read) for key, value in given.items()},
    }
    defaults = {"name": trigger.replace("_", " ").title(), "expires": "never"}
    terminal = is_interactive()
    if terminal and "source" not in answers:
        answers["source"] = _ask("source", OFFERED["source"], read)
    if "source" in answers and answers["source"].text == files.RENDERER:
        if wrong := next((key for key in RENDERED if key in given), None):
            raise click.ClickException(f"{_flag(wrong)}: omit it, since the renderer decides it")
        answers = files.implied_by_renderer(trigger) | answers
    missing = [key for key in QUESTIONS if key not in answers]
    if not terminal and (needed := [_flag(key) for key in missing if key not in defaults]):
        raise click.ClickException(
            f"missing: {', '.join(needed)}. Add these flags, or run the command at a terminal, which asks. "
            "`--source renderer` needs only --holder"
        )
    for key in missing:
        offered = OFFERED.get(key, defaults.get(key))
        answers[key] = _ask(key, offered, read) if terminal else read(key, defaults[key])
    return answers


def is_interactive() -> bool:
    """Return True if questions reach a person at a terminal."""
    return sys.stdin.isatty()


def _ask(key: str, offered: str | None, read: Callable[[str, Any], Any]) -> Any:
    """Return the answer to a question at the terminal, which is repeated until the answer is allowed."""

    def read_or_repeat(text: str) -> Any:
        try:
            return read(key, text)
        except ValueError as err:
            raise click.UsageError(str(err)) from err

    if key not in ("adult", "synthetic"):
        return click.prompt(QUESTIONS[key], default=offered, value_proc=read_or_repeat)
    return read(key, click.confirm(QUESTIONS[key], default=None))


def _read_flag(key: str, value: Any, read: Callable[[str, Any], Any]) -> Any:
    try:
        return read(key, value)
    except ValueError as err:
        raise click.ClickException(f"{_flag(key)} {value}: {err}") from err


def _read_answer(key: str, value: Any) -> Any:
    """Return an answer as the value of its field; raise ValueError if the field does not allow it."""
    from valentina_pipeline.cli.concept_files import check_answer

    if key == "uses":
        value = value.replace(",", " ").split()
    elif key == "expires":
        value = None if value == "never" else _read_day(value)
    elif key == "base":
        return value  # validated with the concept's file, since bases.yml lists the allowed names
    elif key == "adult" and not value:
        raise click.ClickException("a character must be an adult: no file was written")
    return check_answer(key, value)


def _read_day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as err:
        raise ValueError(f"{text!r} must be a day such as 2030-01-31, or never") from err


def _flag(key: str) -> str:
    return FLAGS.get(key, f"--{key}")


def _next_steps(root: Path, answers: Mapping[str, Any], add: bool) -> list[str]:
    """Return what to do before the first run, as commands and lines of files."""
    from valentina_pipeline.cli import concept_files as files
    from valentina_pipeline.config_loader import CONCEPTS, PARAMS, read_mapping

    trigger, location = answers["trigger"], answers["source"]
    params = read_mapping(root / PARAMS)
    steps = []
    tiny = answers.get("base", params["base"]) == "tiny" and location.text != files.RENDERER
    if location.copy_from is not None:
        content = "/." if location.copy_from.is_dir() else ""
        origin = shlex.quote(f"{location.copy_from}{content}")
        steps.append(f"cp -r {origin} {files.RAW}/{trigger}/")
    elif location.text.startswith(files.RAW) and not (root / location.text).is_file():
        steps.append(f"put 20 to 30 images into {location.text}")
    if not add and trigger not in params["concepts"]:
        steps.append(f"set in {PARAMS}:  concepts: [{', '.join([*params['concepts'], trigger])}]")
    if tiny:
        steps.append(f"set in {CONCEPTS}/{trigger}.yml:  base: sdxl    # tiny knows only rendered portraits")
    return [*steps, f"uv run kedro check {trigger}    # lists what is missing", "uv run dvc repro"]
