"""What a reader of a report's page sees."""

import base64
import html
import re


def plain(page):
    """The words a reader sees."""
    body = re.sub(r"<(style|script).*?</\1>|<[^>]+>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(body).split())


def figures(page):
    """The SVG sources of the page's images."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(source).decode() for source in found]
