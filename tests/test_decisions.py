"""The records of decisions: one paragraph each, all of them in the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "decisions"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")


def test_the_index_lists_every_record_by_its_title() -> None:
    listed = re.findall(r"^- \[(.+)\]\((.+)\)$", (FOLDER / "index.md").read_text(), re.MULTILINE)
    titles = [(record.read_text().partition("\n")[0].removeprefix("# "), record.name) for record in RECORDS]
    assert titles == sorted(listed, key=lambda entry: entry[1])


@pytest.mark.parametrize("record", RECORDS, ids=[record.stem for record in RECORDS])
def test_a_record_is_one_paragraph_with_its_four_parts(record: Path) -> None:
    [_, paragraph] = record.read_text().rstrip("\n").split("\n\n")
    parts = re.findall(r"\*\*(.+?):\*\*", " ".join(paragraph.split()))
    assert ["Decision", "Cost", "What would change our mind"] == parts
    assert not paragraph.startswith("**")  # the context comes first


@pytest.mark.parametrize("page", [*RECORDS, FOLDER / "index.md"], ids=lambda page: page.stem)
def test_links_of_a_record_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (FOLDER / link).exists(), link
