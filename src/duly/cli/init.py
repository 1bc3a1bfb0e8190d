"""`duly init`: make the folder of a new application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from duly.cli.errors import errors_as_text

_TEMPLATES: Final = Path(__file__).parent / "templates"
_COMMON: Final = "app"
_START_OF_PAGE: Final = {
    "plain": "npm install && python3 -m http.server --bind 127.0.0.1 8000",
    "react": "npm install && npm run dev",
}
"""The templates for the page, and the commands that serve it from its folder."""

_NAME: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_PLACEHOLDER: Final = "{{name}}"


@click.command()
@click.argument("name")
@click.option(
    "--template",
    type=click.Choice(list(_START_OF_PAGE)),
    default="plain",
    help="How the page is written: in plain JavaScript without a build, or with React and Vite. Default: plain",
)
def init(name: str, template: str) -> None:
    """Make a folder NAME with a small application: functions, a cron, tests, and a page that is live."""
    _check_name(name)
    with errors_as_text():
        folder = Path(name)
        _check_free(folder)
        made = sorted(_make(folder, name, template))
    click.echo(f"Made {name}:")
    for path in made:
        click.echo(f"  {path}")
    click.echo(f"\nNext:\n  cd {name}\n  duly dev")
    click.echo(f"and for the page, in another terminal:\n  cd {name}/web\n  {_START_OF_PAGE[template]}")
    click.echo(f"{name}/README.md has the rest.")


def _check_name(name: str) -> None:
    """Raise a ClickException unless a name is one for a folder and for the project in pyproject.toml."""
    if not _NAME.fullmatch(name):
        raise click.ClickException(
            f"got the name {name!r}, expected letters, digits, - and _, a letter first and no - or _ last:"
            " duly init my-shop"
        )
    if name.lower() == "duly":
        raise click.ClickException(f"got the name {name!r}, which is that of the library: take another one")


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        problem = "which is not empty" if folder.is_dir() else "which is a file"
        raise click.ClickException(f"got {str(folder)!r}, {problem} ({folder.absolute()}); take another name")


def _make(folder: Path, name: str, template: str) -> Iterator[Path]:
    """Copy the files of a template with the name filled in, and return their paths in the folder."""
    for source in (_TEMPLATES / _COMMON, _TEMPLATES / template):
        for file in source.rglob("*"):
            path = file.relative_to(source)
            if file.is_dir() or "__pycache__" in path.parts:  # an installer may compile what it installs
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(file.read_text("utf-8").replace(_PLACEHOLDER, name), "utf-8")
            yield path
