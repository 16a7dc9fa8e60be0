"""What DVC runs again after a change: the real dvc.yaml, params and code; stages that only hash.

`kedro` on PATH is a stand-in that writes each out of its stage from the content of its deps and
params, and notes that it ran: what is tested is which stages DVC runs, not what they do.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli import main
from dvc.repo import Repo

from conftest import copy_project
from untraced import untraced
from valentina_pipeline import dvc_yaml
from valentina_pipeline.pipeline_registry import PIPELINES

pytestmark = pytest.mark.slow

STAND_IN = """#!{python} -S
import hashlib, json, os, pathlib, sys
if sys.argv[1] in ("fingerprint", "base-settings"):
    os.execv({python!r}, [{python!r}, "-m", "kedro", sys.argv[1]])
stage, concept = sys.argv[3], sys.argv[5].partition("=")[2]
spec = json.loads(pathlib.Path("stages.json").read_text())[stage]
deps = [pathlib.Path(path.replace("CONCEPT", concept)) for path in spec["deps"]]
found = [file for dep in deps for file in [dep, *sorted(dep.rglob("*"))]]
chosen = pathlib.Path("params.yaml").read_text().partition("\\n" + stage + ":")[2]
read = b"".join(file.read_bytes() for file in found if file.is_file())
code = json.loads(pathlib.Path("code_fingerprints.json").read_text())[stage]
base = json.loads(pathlib.Path("base_settings.json").read_text())[concept].get(stage)
digest = hashlib.sha256(read + f"{{chosen}}{{code}}{{base}}".encode()).hexdigest()
for path in spec["outs"]:
    out = pathlib.Path(path.replace("CONCEPT", concept))
    if out.name == "captions.csv" and out.exists():
        continue  # a person's edits stay
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.suffix:
        out.mkdir()
        out /= "file"
    metrics = json.dumps({{"value": int(digest[:6], 16)}})
    out.write_text(metrics if out.suffix == ".json" else "x,y\\n1," + digest)
with open({log!r}, "a") as log:
    print(f"{{stage}}@{{concept}}", file=log)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the stand-in first on PATH; it writes to this file."""
    scripts = tmp_path_factory.mktemp("scripts")
    script = scripts / "kedro"
    script.write_text(STAND_IN.format(python=sys.executable, log=str(scripts / "log")))
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([str(scripts), os.environ["PATH"]]))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "Test")
            patch.setenv(f"GIT_{role}_EMAIL", "test@example.com")
        yield scripts / "log"


@pytest.fixture(scope="module")
def built(root: Path, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git whose pipeline ran once for one concept."""
    place = tmp_path_factory.mktemp("built")
    project = copy_project(root, place / "project")
    text = dvc_yaml.render_dvc_yaml(project)
    (project / "dvc.yaml").write_text(text)
    stages = yaml.safe_load(text.replace("${item.concept}", "CONCEPT"))["stages"]
    del stages["code"], stages["bases"]
    (project / "stages.json").write_text(json.dumps({name: spec(stage) for name, stage in stages.items()}))
    git(project, "init", "--quiet")
    with Repo.init(str(project)) as repo, repo.config.edit() as config:
        config["core"] = {"analytics": False, "site_cache_dir": str(place / "site")}
    assert repro(project, log) == from_stage("ingest")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "built")
    return project


def spec(stage: dict[str, Any]) -> dict[str, list[str]]:
    outs = [out for kind in dvc_yaml.KINDS for out in stage.get(kind, [])]
    return {"deps": stage["deps"], "outs": [out if isinstance(out, str) else next(iter(out)) for out in outs]}


@pytest.fixture
def work(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built project that the test may change; the working directory."""
    copy = tmp_path / "project"
    shutil.copytree(built, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


def git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project, check=True)


def dvc(*arguments: str) -> None:
    """Run DVC's command line in this process: a process of its own takes five seconds to start."""
    with untraced():
        assert main([*arguments, "--quiet"]) == 0


def repro(project: Path, log: Path, stage: str | None = None, *, pull: bool = False) -> list[str]:
    """Run `dvc repro` and return the stages that it ran, in order; stages from the cache do not run."""
    log.unlink(missing_ok=True)
    with untraced(), chdir(project), Repo() as repo:
        repo.reproduce(stage, pull=pull)
    return log.read_text().split() if log.exists() else []


def status(project: Path) -> set[str]:
    """Return the stages that `dvc status` calls changed by themselves."""
    with untraced(), chdir(project), Repo() as repo:
        return {name.partition("@")[0] for name in repo.status()}


def edit(file: Path, old: str, new: str) -> None:
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new, 1))


def add_concept(work: Path, name: str) -> None:
    concepts, rights = work / "conf/base/concepts", work / "conf/base/rights"
    shutil.copy(concepts / "valentina_moreau.yml", concepts / f"{name}.yml")
    edit(concepts / f"{name}.yml", "trigger: valentina_moreau", f"trigger: {name}")
    shutil.copytree(rights / "valentina_moreau", rights / name)
    for folder in ("data/01_raw", "data/05_model_input"):
        (work / folder / name).mkdir()
    edit(work / "params.yaml", "[valentina_moreau]", f"[valentina_moreau, {name}]")


def from_stage(first: str, concept: str = "valentina_moreau") -> list[str]:
    return [f"{stage}@{concept}" for stage in PIPELINES[PIPELINES.index(first) :]]


def test_a_second_repro_runs_nothing_and_status_is_clean(work: Path, log: Path) -> None:
    assert repro(work, log) == []
    assert status(work) == set()


def test_a_new_rank_reruns_from_train_lora_and_the_former_rank_comes_from_the_cache(
    work: Path, log: Path
) -> None:
    edit(work / "params.yaml", "rank: auto", "rank: 4")
    assert repro(work, log) == from_stage("train_lora")
    edit(work / "params.yaml", "rank: 4", "rank: auto")
    # DVC caches no run whose outs are in git, nor one without outs: both are cheap
    assert repro(work, log) == ["register@valentina_moreau", "record@valentina_moreau"]


def test_an_edited_caption_reruns_from_caption(work: Path, log: Path) -> None:
    captions = work / "data/04_feature/valentina_moreau/captions.csv"
    captions.write_text(captions.read_text() + "edited by a person\n")
    assert repro(work, log) == from_stage("caption")  # and not the captioner, of `describe`
    assert "edited by a person" in captions.read_text()


def test_edited_code_of_evaluate_reruns_from_evaluate(work: Path, log: Path) -> None:
    nodes = work / "src/valentina_pipeline/pipelines/evaluate/nodes.py"
    nodes.write_text(nodes.read_text() + "\nCHANGED = 1\n")
    assert repro(work, log) == from_stage("evaluate")


def test_an_edited_color_of_the_report_generates_no_image_again(work: Path, log: Path) -> None:
    edit(work / "src/valentina_pipeline/image/evaluate/html_page.py", "--lora: #b4532a", "--lora: #b4532b")
    assert repro(work, log) == from_stage("report")  # the stand-in changes the grid, too


def test_edited_words_and_code_that_only_serves_rerun_nothing(work: Path, log: Path) -> None:
    for file in (work / "src/valentina_pipeline").rglob("*.py"):
        file.write_text(f'{file.read_text()}\n# a comment\n"""A string that stands alone."""\n')
    app = work / "src/valentina_pipeline/serving/api/app.py"
    app.write_text(app.read_text() + "\nCHANGED = 1\n")
    assert status(work) == {"code"}
    assert repro(work, log) == []
    assert status(work) == set()


def test_a_key_counts_only_for_the_stages_that_take_it(work: Path, log: Path) -> None:
    bases = yaml.safe_load((work / "conf/base/bases.yml").read_text())
    bases["tiny"]["train_lora"]["max_steps"] += 1
    bases["sdxl"]["train_lora"]["max_steps"] += 1  # which nobody chose
    (work / "conf/base/bases.yml").write_text(yaml.safe_dump(bases))
    assert status(work) == {"bases"}
    assert repro(work, log, "bases") == []
    card = "register"  # which states how it was trained
    assert status(work) == {"train_lora", card}
    edit(work / "conf/base/concepts/valentina_moreau.yml", "evaluate: {}", "evaluate: {steps: 9}")
    edit(work / "conf/base/catalog.yml", "${_concept}/package", "${_concept}/./package")
    assert status(work) == {"code", "bases", "train_lora", "evaluate", "report", card, "publish", "record"}


def test_a_second_concept_is_a_second_file_and_reruns_nothing_of_the_first(work: Path, log: Path) -> None:
    add_concept(work, "anna")
    assert repro(work, log) == from_stage("ingest", "anna")
    assert (work / "data/06_models/anna/lora").is_dir()
    (work / "data/01_raw/anna/1.png").write_text("an image")
    (work / "data/05_model_input/anna/style.safetensors").write_text("a LoRA")
    with chdir(work), Repo() as repo:
        assert set(repo.status()) == {"ingest@anna", "train_lora@anna"}


def test_an_edited_base_reruns_only_the_concepts_that_use_it(work: Path, log: Path) -> None:
    add_concept(work, "anna")
    bases = yaml.safe_load((work / "conf/base/bases.yml").read_text())
    bases["small"] = deepcopy(bases["tiny"])
    (work / "conf/base/bases.yml").write_text(yaml.safe_dump(bases))
    assert repro(work, log) == from_stage("ingest", "anna")
    edit(work / "conf/base/concepts/anna.yml", "kind:", "base: small\nkind:")
    assert repro(work, log) == []  # another name for equal settings
    for base, concept, steps in (("small", "anna", 9), ("tiny", "valentina_moreau", 10)):
        bases[base]["train_lora"]["max_steps"] = steps
        (work / "conf/base/bases.yml").write_text(yaml.safe_dump(bases))
        assert repro(work, log) == from_stage("train_lora", concept)
    edit(work / "params.yaml", "base: tiny", "base: small")
    assert repro(work, log) == from_stage("train_lora")  # anna names its own base


def test_a_rank_given_to_an_experiment_wins(work: Path, log: Path) -> None:
    log.unlink(missing_ok=True)
    # --temp runs it in .dvc/tmp/exps, as --queue does, so that `kedro` has to find the copy there
    dvc("exp", "run", "--temp", "--name", "eight", "--set-param", "train_lora.rank=8")
    assert log.read_text().split() == from_stage("train_lora")
    refs = subprocess.check_output(["git", "for-each-ref", "--format=%(refname)", "refs/exps"], text=True)
    (ref,) = (ref for ref in refs.split() if ref.endswith("/eight"))
    tried = yaml.safe_load(subprocess.check_output(["git", "show", f"{ref}:params.yaml"]))
    assert tried["train_lora"]["rank"] == 8
    assert yaml.safe_load((work / "params.yaml").read_text())["train_lora"]["rank"] == "auto"


def test_a_clone_that_pulls_from_s3_runs_nothing_and_takes_former_results_from_there(
    work: Path, log: Path, s3: Any, tmp_path: Path
) -> None:
    s3.create_bucket(Bucket="store")
    dvc("remote", "add", "--default", "store", "s3://store/valentina")
    dvc("remote", "modify", "store", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
    edit(work / "params.yaml", "crop: auto", "crop: bust")
    assert repro(work, log) == from_stage("align")
    dvc("push", "--run-cache")  # DVC pushes the data of what dvc.lock names at the time, no earlier data
    git(work, "checkout", "--quiet", "params.yaml", "dvc.lock", "data")
    dvc("checkout")
    git(work, "commit", "--quiet", "--all", "--message", "a remote")
    dvc("push", "--run-cache")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(work), str(clone))
    with chdir(clone):
        dvc("pull", "--run-cache")
    assert status(clone) == set()
    assert repro(clone, log) == []
    edit(clone / "params.yaml", "crop: auto", "crop: bust")  # aligned elsewhere
    assert repro(clone, log, pull=True)[0] == "caption@valentina_moreau"  # captions.csv is in git, not pushed
