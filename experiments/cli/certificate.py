"""What `experiments.verify` found in a run directory, and whether the same is still there."""

import dataclasses
import pathlib

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_json
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint

CERTIFICATE = "verify.json"


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a run directory claims, and whether it holds.

    Attributes:
        holds: None where it was not looked at, and `found` says why.
    """

    name: str
    holds: bool | None
    found: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not checked"}[self.holds]
        return f"{word:<12} {self.name:<12} {self.found}"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The claims of a verify.json.

    Attributes:
        changed: files that are not as they were when they were checked, or are new or gone. With
            any, the claims prove nothing.
    """

    claims: tuple[Claim, ...]
    changed: tuple[str, ...]


def read_certificate(run_dir: pathlib.Path) -> Certificate | None:
    """What was found when the run was last verified; None if it was not, or not to the end.

    Raises:
        InputError: if verify.json is damaged.
    """
    path, remedy = run_dir / CERTIFICATE, f"python -m experiments.verify --run={run_dir}"
    if not path.exists():
        return None
    content = read_json(path, "certificate", remedy)
    try:
        claims = tuple(Claim(**claim) for claim in content["claims"])
        then = dict(content.get("files", {}))  # version 0.1 named none
    except (KeyError, TypeError, ValueError):
        raise InputError(str(path), "another kind of JSON", "a certificate", remedy) from None
    now = tables.checksums(run_dir, checkpoint.read_finished(run_dir))
    changed = [name for name in now.keys() | then.keys() if now.get(name) != then.get(name)]
    return Certificate(claims, tuple(sorted(changed)))
