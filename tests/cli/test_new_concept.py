"""A new character's files, from flags and from questions at a terminal."""

import hashlib
import shutil
import subprocess
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner, Result

from valentina_pipeline.cli import cli, concept_files, new_concept
from valentina_pipeline.cli.check import check_project
from valentina_pipeline.common import atomic_files
from valentina_pipeline.config.effective import resolve_params
from valentina_pipeline.config_loader import load_layers, read_concepts
from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.integrations import ledgers

OWN = {
    "--source": "data/01_raw/ada_lind", "--holder": "Ada Lind", "--class-word": "woman",
    "--description": "oval face, short red hair", "--license": "proprietary",
    "--uses": "training,generation", "--evidence": "contract of 2026-05-01",
}  # fmt: skip
RENDERED = ("--source", "renderer", "--holder", "My Studio")


def create(project: Path, *arguments: str, answers: str | None = None) -> Result:
    return CliRunner().invoke(
        cli, ["new-concept", *arguments], obj=SimpleNamespace(project_path=project), input=answers
    )


def create_own(project: Path, *more: str, **changed: str) -> Result:
    flags = OWN | {f"--{key.replace('_', '-')}": value for key, value in changed.items()}
    words = [word for pair in flags.items() for word in pair]
    return create(project, "ada_lind", *words, "--adult", "--not-synthetic", *more)


def files(project: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(project)): file.read_bytes()
        for file in [*(project / "conf").rglob("*"), project / "params.yaml"]
        if file.is_file()
    }


def problems(project: Path, concept: str) -> set[str]:
    return {finding.topic for _, finding in check_project(project, [concept]) if finding.problem}


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A copy of the project's configuration alone."""
    target = tmp_path / "project"
    shutil.copytree(root / "conf/base", target / "conf/base")
    for file in ("params.yaml", ".gitignore"):
        shutil.copy(root / file, target / file)
    return target


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input that is a terminal."""
    monkeypatch.setattr(new_concept, "is_interactive", lambda: True)


def test_a_folder_outside_gives_files_that_every_stage_accepts_and_the_commands_that_follow(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "her pictures").mkdir()
    contract = tmp_path / "contract.pdf"
    contract.write_bytes(b"signed")
    done = create_own(
        project, "--expires", "2099-01-31", "--evidence-file", str(contract),
        source=str(tmp_path / "her pictures"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    concept = Concept.model_validate(load_layers(project, "ada_lind")[2])
    assert (concept.name, concept.source) == ("Ada Lind", "data/01_raw/ada_lind")
    (record,) = ledgers.read(project / "conf/base/rights/ada_lind")
    assert (record.holder, record.uses, record.synthetic) == ("Ada Lind", ("training", "generation"), False)
    assert record.expires == date(2099, 1, 31)
    assert record.evidence_sha256 == hashlib.sha256(b"signed").hexdigest()
    assert record.covers_name("may/1.jpg")
    steps = done.output.partition("next:\n")[2].splitlines()
    assert steps[0] == f"  1. cp -r '{tmp_path}/her pictures/.' data/01_raw/ada_lind/"
    assert steps[1:3] == [
        "  2. set in params.yaml:  concepts: [valentina_moreau, ada_lind]",
        "  3. set in conf/base/concepts/ada_lind.yml:  base: sdxl    # tiny knows only rendered portraits",
    ]
    assert steps[3].startswith("  4. uv run kedro check ada_lind") and steps[4] == "  5. uv run dvc repro"
    written = b"".join(content for name, content in files(project).items() if "ada_lind" in name)
    assert str(tmp_path).encode() not in written  # no path of this machine comes into git
    assert problems(project, "ada_lind") == {"source", "models"}  # no images yet, and no weights


def test_a_rendered_character_is_complete_repeatable_and_added_with_all_comments_kept(project: Path) -> None:
    before = (project / "params.yaml").read_text().splitlines()
    done = create(project, "mira_sol", *RENDERED, "--add")
    assert done.exit_code == 0, done.output
    assert read_concepts(project) == ["valentina_moreau", "mira_sol"]
    after = (project / "params.yaml").read_text().splitlines()
    assert [line for line in after if line not in before] == [
        line.replace("[valentina_moreau]", "[valentina_moreau, mira_sol]")
        for line in before
        if line.startswith("concepts:")
    ]
    assert len(after) == len(before)
    assert problems(project, "mira_sol") == {"models"}
    assert "set in params.yaml" not in done.output
    text = (project / "conf/base/concepts/mira_sol.yml").read_text()
    assert concept_files.invent_identity("mira_sol") == concept_files.invent_identity("mira_sol")
    assert yaml.safe_load(text)["description"] == concept_files.invent_identity("mira_sol")[1]
    assert concept_files.invent_identity("mira_sol") != concept_files.invent_identity("ada_lind")


def test_a_given_base_is_that_of_the_concept(project: Path) -> None:
    done = create_own(project, "--base", "sdxl")
    assert done.exit_code == 0 and "base: sdxl" not in done.output, done.output
    assert resolve_params(*load_layers(project, "ada_lind"))["base_name"] == "sdxl"
    (line,) = (
        line
        for line in (finding.text for _, finding in check_project(project, ["ada_lind"]))
        if "xl-base" in line
    )
    assert "stabilityai/stable-diffusion-xl-base-1.0" in line


def test_traits_in_words_are_those_of_the_example(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from valentina_pipeline.image.renderer import traits
    from valentina_pipeline.image.renderer.prompt_parser import parse_identity

    example = Concept.model_validate(load_layers(project, "valentina_moreau")[2])
    identity = parse_identity(example.renderer_parameters)
    monkeypatch.setattr(traits, "random_identity", lambda rng: identity)
    parameters, words = concept_files.invent_identity("any")
    assert (parameters, words) == (example.renderer_parameters, example.description)
    assert set(example.caption_excluded_words) <= set(concept_files.FIXED_TRAIT_WORDS)


def test_without_a_terminal_missing_flags_are_named_and_nothing_is_asked(project: Path) -> None:
    before = files(project)
    done = create(project, "ada_lind", "--source", "data/01_raw/ada_lind", "--adult", answers="y\n" * 20)
    assert done.exit_code == 1
    assert (
        "missing: --holder, --class-word, --description, --synthetic or --not-synthetic, --license, --uses"
        in (done.output)
    )
    assert "--adult" not in done.output and "?" not in done.output
    assert files(project) == before


@pytest.mark.usefixtures("terminal")
def test_a_terminal_asks_for_what_is_missing_and_repeats_a_wrong_answer(project: Path) -> None:
    answers = [
        "data/01_raw/ada_lind", "", "Woman 1", "woman", "oval face", "y", "n", "CC-BY-4.0", "selling", "",
        "tomorrow", "2099-01-31", "contract",
    ]  # fmt: skip
    done = create(project, "ada_lind", "--holder", "Studio", answers="\n".join(answers) + "\n")
    assert done.exit_code == 0, done.output
    assert done.output.count("Error: ") == 3  # class word, uses and day
    assert "Holder" not in done.output
    (record,) = ledgers.read(project / "conf/base/rights/ada_lind")
    assert (record.uses, record.license) == (("training", "generation", "publication"), "CC-BY-4.0")
    assert load_layers(project, "ada_lind")[2]["name"] == "Ada Lind"


@pytest.mark.usefixtures("terminal")
def test_a_minor_ends_the_questions(project: Path) -> None:
    before = files(project)
    done = create(project, "ada_lind", *(word for pair in OWN.items() for word in pair), answers="\nn\n")
    assert done.exit_code == 1 and "must be an adult" in done.output
    assert files(project) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"source": "nowhere"}, "--source nowhere: 'nowhere' does not exist. Allowed are renderer"),
        ({"source": "params.yaml"}, "must be a folder, a .zip or a video"),
        ({"source": "data/01_raw"}, "must not contain data/01_raw/ada_lind"),
        ({"source": ""}, "must not contain data/01_raw/ada_lind"),
        ({"source": "ftp://host/ada"}, "source 'ftp://host/ada' is not supported"),
        ({"source": "s3://"}, "has no bucket"),
        ({"holder": " "}, "holder: String should have at least 1 character"),
        ({"class_word": "schoolgirl"}, "class_word and description of ada_lind"),
        ({"uses": "training"}, "not generation, but the stages need training and generation: correct --uses"),
        ({"uses": "selling"}, "--uses selling: uses: Input should be 'training', 'generation' or "),
        ({"expires": "2020-01-31"}, "record ada-lind ended on 2020-01-31"),
        ({"expires": "soon"}, "must be a day such as 2030-01-31, or never"),
        ({"name": "${oc.env:"}, "is not YAML"),
        ({"base": "sd3"}, "base: 'sd3' in ada_lind.yml is not one of sd15, sdxl, sdxl_turbo, tiny"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_named_and_writes_nothing(
    project: Path, changed: dict[str, str], said: str
) -> None:
    before = files(project)
    done = create_own(project, "--add", **changed)
    assert done.exit_code == 1 and said in done.output, done.output
    assert files(project) == before and not (project / "data/01_raw/ada_lind").exists()


@pytest.mark.parametrize(
    ("source", "location", "hosts"),
    [
        ("data/01_raw/ada_lind/may", "data/01_raw/ada_lind/may", None),
        ("data/01_raw/ada_lind/film.mp4", "data/01_raw/ada_lind/film.mp4", None),
        ("{tmp}/ada.zip", "data/01_raw/ada_lind/ada.zip", None),
        ("s3://studio/ada", "s3://studio/ada", None),
        ("https://cdn.example.com:8443/list.txt", "https://cdn.example.com:8443/list.txt", "cdn.example.com"),
    ],
)
def test_each_kind_of_source_is_written_as_the_stage_reads_it(
    project: Path, tmp_path: Path, source: str, location: str, hosts: str | None
) -> None:
    (tmp_path / "ada.zip").write_bytes(b"")
    done = create_own(project, source=source.format(tmp=tmp_path))
    assert done.exit_code == 0, done.output
    concept = load_layers(project, "ada_lind")[2]
    assert concept["source"] == location
    assert concept["overrides"]["ingest"] == ({"allowed_hosts": [hosts]} if hosts else {})
    assert ("cp -r" in done.output) == source.startswith("{tmp}")


@pytest.mark.parametrize("flag", [("--class-word", "man"), ("--not-synthetic",)])
def test_what_the_renderer_decides_is_not_given(project: Path, flag: tuple[str, ...]) -> None:
    done = create(project, "mira_sol", *RENDERED, *flag)
    assert done.exit_code == 1 and "omit it, since the renderer decides it" in done.output


@pytest.mark.parametrize("existing", ["concepts/mira_sol.yml", "rights/mira_sol/own.csv"])
def test_an_existing_concept_is_never_overwritten(project: Path, existing: str) -> None:
    file = project / "conf/base" / existing
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = files(project)
    done = create(project, "mira_sol", *RENDERED)
    assert done.exit_code == 1 and f"conf/base/{existing} exists and is never overwritten" in done.output
    assert files(project) == before


def test_a_record_of_another_concept_keeps_its_id(project: Path) -> None:
    other = project / "conf/base/rights/valentina_moreau/renderer.yml"
    other.write_text(other.read_text().replace("id: valentina-moreau-2024", "id: mira-sol"))
    done = create(project, "mira_sol", *RENDERED)
    assert done.exit_code == 1 and "record 'mira-sol' of another concept" in done.output


@pytest.mark.parametrize("failing", ["mira_sol.yml", "renderer.yml", "params.yaml"])
def test_all_files_are_written_or_none(project: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before, replace = files(project), atomic_files.replace

    def fail_once(path: Path, content: bytes) -> None:
        if path.name == failing:
            raise KeyboardInterrupt
        replace(path, content)

    monkeypatch.setattr(atomic_files, "replace", fail_once)
    assert create(project, "mira_sol", *RENDERED, "--add").exit_code == 1
    assert files(project) == before and not (project / "conf/base/rights/mira_sol").exists()
    monkeypatch.undo()
    assert create(project, "mira_sol", *RENDERED, "--add").exit_code == 0


@pytest.mark.parametrize("name", ["Ada", "a", "ada-lind", "../ada"])
def test_a_name_that_is_no_trigger_is_refused(project: Path, name: str) -> None:
    done = create(project, name, *RENDERED)
    assert done.exit_code == 1 and "must be 2 to 64 lower-case letters" in done.output


def test_an_everyday_word_is_a_warning(project: Path) -> None:
    done = create(project, "rose", *RENDERED)
    assert done.exit_code == 0 and "trigger 'rose' is a common word" in done.output


def test_git_ignores_private_images_but_not_the_new_files(project: Path) -> None:
    assert create_own(project).exit_code == 0
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    for name in ("1.jpg", "may/2.png"):
        image = project / "data/01_raw/ada_lind" / name
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(b"private")
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=project, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert "conf/base/concepts/ada_lind.yml" in listed and "conf/base/rights/ada_lind/contract.yml" in listed
    assert not [name for name in listed if name.startswith("data/01_raw/ada_lind")]
