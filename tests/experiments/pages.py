"""What a reader of a report's page sees."""

import base64
import html
import itertools
import re


def plain(page):
    """The words a reader sees."""
    body = re.sub(r"<(style|script).*?</\1>|<[^>]+>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(body).split())


def figures(page):
    """The SVG sources of the page's images."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(source).decode() for source in found]


def overlaps(figure, texts):
    """Pairs of texts of a figure, one of which hides part of the other."""
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (one, other)
        for (one, box), (other, beside) in itertools.combinations(boxes, 2)
        if box.overlaps(beside)
    ]
