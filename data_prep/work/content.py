"""Is what was downloaded, or lies where it would, what its name says?"""

import pathlib
import re

from data_prep.formats.bigwig import require_whole
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import opened

_PIECE = 1 << 20
_BAM_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_WEB_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)


def require_content(path: pathlib.Path, name: str) -> None:
    """Check what can be checked of a file without knowing its checksum.

    A bigWig must be whole, a gzip file unpack to its end, a BAM end as such; none is a web page.

    Args:
        path: the file.
        name: what it is called, or will be.

    Raises:
        InputError: if it is something else, or cut short.
    """
    with open(path, "rb") as file:
        head = file.read(1000)
        file.seek(max(file.seek(0, 2) - len(_BAM_END), 0))
        tail = file.read()
    suffix = pathlib.Path(name.lower()).suffix
    if _WEB_PAGE.match(head.removeprefix(b"\xef\xbb\xbf")) and suffix not in (".html", ".htm"):
        raise _refused(path, "a web page instead of the file")
    if suffix in (".bw", ".bigwig"):
        require_whole(path)
    elif suffix == ".bam" and tail != _BAM_END:
        raise _refused(path, "no whole BAM")
    elif suffix == ".gz":
        if not head.startswith(b"\x1f\x8b"):
            raise _refused(path, f"no gzip file: first bytes {head[:8]!r}")
        with opened(path) as file:
            while file.read(_PIECE):
                pass
    elif not head:
        raise _refused(path, "an empty file")


def _refused(path: pathlib.Path, found: str) -> InputError:
    return InputError(str(path), found, "what its name says", "check the URL, or log in there")
