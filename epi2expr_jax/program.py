"""How every program starts: its flags, its --help, and how it reports bad input.

It lies in the library because both folders of commands use it; nothing else here needs absl.
"""

import sys
from collections.abc import Callable, Sequence

from epi2expr_jax.errors import collect, exit_on_bad_input


def start(main: Callable[[], None], *definitions: Callable[[], None]) -> None:
    """Define flags, parse the command line, run `main`, leave with a status.

    Flags are defined here and not at import, since programs that share a process (tests) would
    clash: build_store's --genes is a file, simulate's a number.

    Args:
        main: the program; its module's docstring is the text of --help.
        definitions: functions that define its flags.
    """
    from absl import app, flags, logging  # the library itself does without absl

    FLAGS = flags.FLAGS
    # absl looks for both under the name of the script, which an installed command does not share.
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
    before = set(FLAGS)
    for define in definitions:
        define()
    for name in set(FLAGS) - before:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    # Orbax and pyensembl report every step at INFO.
    FLAGS.verbosity = logging.WARNING

    def run(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        with exit_on_bad_input():
            main()

    app.run(run)


def require(*names: str) -> None:
    """Refuse a command line that lacks one of these flags.

    Raises:
        InputError: naming every flag that is missing.
    """
    from absl import flags

    with collect() as problems:
        for name in names:
            if not getattr(flags.FLAGS, name):
                problems.add("command line", f"no --{name}", "a value", "see --help for an example")
