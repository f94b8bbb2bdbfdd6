"""What is given away: the wheel works outside a checkout, and the files around it agree."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_files_around_the_package_agree():
    version = PROJECT["version"]
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == version
    assert f"## {version} " in (REPOSITORY / "CHANGELOG.md").read_text()
    least = PROJECT["requires-python"].removeprefix(">=")
    assert f"FROM python:{least}-slim" in (REPOSITORY / "Dockerfile").read_text()
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert f"python={least}" in conda["dependencies"]
    for form in (REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text()).keys() == {"name", "description", "body"}


def test_constraints_pin_every_package_of_every_extra():
    """Else two people who install the same version run different code."""
    pinned = re.findall(r"^([\w.-]+)==", (REPOSITORY / "constraints.txt").read_text(), re.M)
    extras = [*PROJECT["dependencies"]]
    for others in PROJECT["optional-dependencies"].values():
        extras += others
    named = {re.split(r"[\[>=<]", one)[0].lower().replace("_", "-") for one in extras}
    assert named - {*pinned} == {"epi2expr-jax"}


@pytest.mark.trial
def test_the_wheel_of_a_clean_clone_works_outside_it(tmp_path, trial_size):
    if trial_size(True, False):
        pytest.skip("builds a wheel, in `make trials`")
    clone, site = tmp_path / "clone", tmp_path / "site"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", clone], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", wheel], check=True)

    def said(*command):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert said(sys.executable, "-c", "import experiments; print(experiments.__file__)").startswith(
        str(site)
    )
    assert said(site / "bin/epi2expr", "--version") == PROJECT["version"]
    said(site / "bin/epi2expr", "simulate", "--out=sim", "--genes=60", "--cells=1", "--assays=2")
    assert (tmp_path / "sim" / "truth.json").exists()
    for kind in ("studies/demo.toml", "report.js", "report.html.j2", "models/simulated.zip"):
        assert (site / "experiments" / kind).exists()
    assert not (site / "experiments" / "benchmarks").exists()
    advice = said(site / "bin/epi2expr", "advise", "--model=simulated", "--have=DNase")
    assert "simulated data" in advice
    assert "experiments.report" in said(site / "bin/epi2expr", "study", "--study=demo", "--dry_run")
