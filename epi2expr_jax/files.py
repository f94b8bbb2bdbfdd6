"""Files that are whole or absent."""

import json
import pathlib
from typing import Any


def write_json(path: pathlib.Path, content: Any) -> None:
    """Whole or not at all: written beside, then renamed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    partial.replace(path)
