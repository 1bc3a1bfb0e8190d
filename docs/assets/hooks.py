"""Hooks of mkdocs: what the sources of the pages leave to the build."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).parents[2] / "src"
_REFERENCE: Final = re.compile(r"^::: (\w+)$", re.MULTILINE)
_UPWARD: Final = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]*)[^)]*\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return with_modules(with_text_for_files(markdown, posixpath.dirname(page.file.src_uri)))


def with_text_for_files(markdown: str, folder: str) -> str:
    """Turn links to files that are not pages, such as examples, into plain text: the site does not have them."""

    def shown(link: re.Match[str]) -> str:
        leaves_docs = posixpath.normpath(posixpath.join(folder, link[2])).startswith("..")
        return f"`{link[1]}`" if leaves_docs else link[0]

    return _UPWARD.sub(shown, markdown)


def with_modules(markdown: str) -> str:
    """Write `::: Query` with its module: such classes are not public names, and may move."""
    return _REFERENCE.sub(lambda reference: f"::: {place_of(reference[1])}", markdown)


def place_of(name: str) -> str:
    """The dotted name of the one class of duly that has this name."""
    found = [path for path in SOURCE.rglob("*.py") if re.search(rf"^class {name}\b", path.read_text(), re.MULTILINE)]
    if len(found) != 1:
        raise LookupError(f"got {len(found)} classes of the name {name} in {SOURCE}, expected one")
    return ".".join((*found[0].relative_to(SOURCE).with_suffix("").parts, name))
