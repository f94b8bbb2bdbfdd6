"""How the objects that people hold in Python show themselves: by a few facts, in a few lines."""

import html
from collections.abc import Iterable
from typing import Any

from epi2expr_jax.genome import listing


class Facts:
    """Shows itself as lines of text, and as a table in a notebook."""

    def facts(self) -> tuple[str, dict[str, Any]]:
        """What it is, in a line, and facts about it by their names."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, facts = self.facts()
        width = max(map(len, facts))
        return "\n".join([title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())])

    def _repr_html_(self) -> str:
        title, facts = self.facts()
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(str(fact))}</td></tr>'
            for name, fact in facts.items()
        )
        return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def counted(names: Iterable[str]) -> str:
    """How many names, and the first of them."""
    names = list(names)
    return f"{len(names)}: {listing(names)}"
