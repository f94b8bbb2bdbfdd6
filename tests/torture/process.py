"""The fork server: a parent that only imports, and children that are the commands.

A command takes seconds to import what it needs. The parent does so once; each child is a fork of it
that becomes `python -m` of a command, with limits of its own and without root's powers. This is
sound only while the parent is one thread that has begun nothing: `start` asserts it.
"""

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback

from epi2expr_jax import ending
from tests.one_worker import one_worker

# Read by the libraries as they are imported: no threads of BLAS, OpenMP or jemalloc in the parent.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MPLBACKEND": "agg",
    "PYTHONUNBUFFERED": "1",
}
_LIBRARIES = (
    *("flax.nnx", "optax", "tensorstore", "orbax.checkpoint", "scipy.stats", "xarray", "zarr"),
    *("distributed", "sklearn.linear_model", "sklearn.ensemble", "bioframe", "pyensembl"),
    *("matplotlib.pyplot", "requests", "jinja2", "tqdm", "pyarrow.parquet", "pyBigWig"),
)
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP, _CAPABILITIES_V3 = 24, 0x20080522


class Become(BaseException):
    """Raised in a child, to leave all frames of the parent behind: it is a command from here on."""

    def __init__(self, module: str, arguments: list[str]):
        super().__init__()
        self.module, self.arguments = module, arguments

    def run(self) -> None:
        """The program, as `python -m` starts it, but with Dask's workers as threads of it."""
        from data_prep.work import cluster

        cluster.local = one_worker
        sys.argv = ["-m"]
        ending.while_importing()  # as where a command begins
        sys.argv = [self.module, *self.arguments]
        sys.modules["__main__"] = program = importlib.import_module(self.module)
        program.run()


def load(modules: list[str]) -> None:
    """Import the libraries and these programs."""
    for name in [*_LIBRARIES, *modules]:
        importlib.import_module(name)
    # A child's collections would look at all of it, at its end too, and so copy it.
    gc.collect()
    gc.freeze()


def require_untouched() -> None:
    """The parent is one thread, without a backend of JAX."""
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads before a fork"
    bridge = sys.modules.get("jax._src.xla_bridge")
    assert not getattr(bridge, "_backends", None), "JAX has a backend before a fork"


def drop_powers() -> None:
    """Be bound by permissions as any user is, also as root: for good, also in other programs."""
    if os.geteuid():
        return
    for capability in range(64):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    if _LIBC.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "the powers of root cannot be given up")


@dataclasses.dataclass
class Ended:
    """How a child ended: its exit status, negative for the signal that killed it, and its time."""

    status: int
    seconds: float
    cpu: float
    hung: bool = False


class Child:
    """A started command."""

    def __init__(self, pid: int, log: pathlib.Path, said: int):
        self.said = open(said, "rb", buffering=0)  # noqa: SIM115 -- until it has ended
        os.set_blocking(said, False)
        self.pid, self.log, self.began, self.ended = pid, log, time.monotonic(), None
        self._used, self._moved = 0.0, self.began

    def poll(self) -> Ended | None:
        """How it ended, if it has."""
        if self.ended is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            while part := self.said.read(1 << 16):
                with open(self.log, "ab") as log:
                    log.write(part)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                seconds = time.monotonic() - self.began
                self.ended = Ended(code, seconds, used.ru_utime + used.ru_stime)
                self.said.close()
        return self.ended

    def stuck(self, limit: float) -> bool:
        """Whether it has computed for so many seconds, or done nothing for as many."""
        with contextlib.suppress(OSError, IndexError):
            fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            used = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            if used > self._used + 0.1:
                self._used, self._moved = used, time.monotonic()
        return self._used > limit or time.monotonic() - self._moved > limit

    def wait(self, limit: float) -> Ended:
        """Until it ends, or is killed at the limit."""
        while not self.poll():
            if time.monotonic() - self.began > limit:
                os.killpg(self.pid, signal.SIGKILL)
                while not self.poll():
                    time.sleep(0.01)
                self.ended.hung = True
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # workers that it left behind
        return self.ended

    def text(self) -> str:
        """What it wrote to stdout and stderr."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def start(
    module: str,
    arguments: list[str],
    folder: pathlib.Path,
    log: pathlib.Path,
    environment: dict[str, str],
    *,
    limits: dict[int, int] | None = None,
    closed_pipe: bool = False,
    anew: bool = False,
) -> Child:
    """Start a command in a folder.

    Args:
        log: the file that gets what it writes.
        limits: `resource.RLIMIT_*` → value.
        closed_pipe: stdout is a pipe that nobody reads any more.
        anew: a new interpreter, which imports everything itself, under this environment.
    """
    require_untouched()
    said, saying = os.pipe()  # not into the file itself, whose size a limit is of, too
    pid = os.fork()
    if pid:
        os.close(saying)
        return Child(pid, log, said)
    try:
        os.setsid()
        for number in ending._SAID:  # as in a program that begins; `&` has them ignored
            signal.signal(number, ending._at_once)
        os.chdir(folder)
        _redirect(saying, closed_pipe)
        os.environ.update(environment)
        tempfile.tempdir = None
        for kind, value in (limits or {}).items():
            resource.setrlimit(kind, (value, value))
        drop_powers()
        if anew:
            os.environ["PYTHONPATH"] = str(_ROOT)
            os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    except BaseException:
        traceback.print_exc()
        os._exit(99)
    raise Become(module, arguments)


def _redirect(handle: int, closed_pipe: bool) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if closed_pipe:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
    os.closerange(3, 1024)


def probe(attempt, limits: dict[int, int] | None = None) -> bool:
    """Whether a child with these limits, and without root's powers, can do something."""
    require_untouched()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            for kind, value in (limits or {}).items():
                resource.setrlimit(kind, (value, value))
            drop_powers()
            attempt()
            status = 0
        except (OSError, MemoryError):
            pass
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
