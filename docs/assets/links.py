"""A hook of mkdocs: in the site, links to files that are not pages, such as examples, become plain text."""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

_UPWARD: Final = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]*)[^)]*\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    folder = posixpath.dirname(page.file.src_uri)

    def shown(link: re.Match[str]) -> str:
        leaves_docs = posixpath.normpath(posixpath.join(folder, link[2])).startswith("..")
        return f"`{link[1]}`" if leaves_docs else link[0]

    return _UPWARD.sub(shown, markdown)
