"""Every run that is trained here must prove itself; and a made-up one, for what reads one."""

import pytest
from absl import flags

from epi2expr_jax.study import tables
from experiments import report
from experiments.report import write_report
from tests.experiments import masked_runs as masked
from tests.experiments.made_up import MadeUpRun


@pytest.fixture(scope="session", autouse=True)
def every_run_is_verified(verified_runs):
    """As soon as a training ends."""


@pytest.fixture(scope="session")
def made_up_run():
    """`made_up_run(cells, assays=..., ...).write(folder)`."""
    return MadeUpRun


@pytest.fixture(scope="session")
def study(once, made_up_run):
    """Its folder, page and ranking: three cells, twelve assays, five folds; one assay of one cell
    quarantined."""

    def make(folder):
        made_up_run(quarantined=(("E116", "H3K9me3"),), target="minmax").write(folder / "study")
        write_report(folder / "study")

    folder = once("reported", make) / "study"
    return folder, (folder / "report.html").read_text(), tables.RANKING.read(folder)


@pytest.fixture(scope="session")
def masked_runs(once, build, trial_size):
    """A masked-mark run and models of subsets alone, evaluated; see `MaskedRuns`."""
    return masked.of(once("masked", lambda folder: masked.make(folder, build, trial_size)))


@pytest.fixture
def page_of(made_up_run, monkeypatch):
    """`page_of(folder, cells, ...)`: the report of a made-up run, without its folder of figures."""
    monkeypatch.setattr(report, "_export", lambda *_: None)
    monkeypatch.setattr(report, "_narrow_figures", lambda *_: {})  # of which `study` has some

    def page_of(folder, cells=("E003",), **options):
        made_up_run(cells, **options).write(folder)
        return write_report(folder).read_text()

    return page_of


@pytest.fixture
def parse_flags():
    """`parse_flags(definitions, *arguments)`: a command line as a program reads it; then undone."""
    known = set(flags.FLAGS)

    def forget():
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)

    def parse(definitions, *arguments):
        forget()
        for define in definitions:
            define()
        flags.FLAGS(["program", *arguments])

    yield parse
    forget()
