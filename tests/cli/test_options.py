"""The folder and the store that pyproject.toml names, and what is wrong with one that names none."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from duly.cli import main, options


def test_the_help_has_all_of_what_each_command_is_for() -> None:
    found = 0
    for group in (main, *(command for command in main.commands.values() if isinstance(command, click.Group))):
        text = " ".join(CliRunner().invoke(group, ["--help"]).output.split())
        assert "..." not in text.replace("COMMAND [ARGS]...", "")
        for command in group.commands.values():
            sentence = " ".join((command.help or "").split()).partition(". ")[0].rstrip(".")
            assert f"{command.name} {sentence}." in text
            found += 1
    assert found > 10


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tool.duly", "pyproject.toml is no TOML: Expected ']' at the end of a table declaration (at "),
        ("[tool]\nduly = 3", "pyproject.toml: got 3 for tool.duly, expected a table with folder and store"),
        ("tool = 3", "pyproject.toml: got 3 for tool.duly, expected a table with folder and store"),
        ("[[tool.duly]]", "pyproject.toml: got [{}] for tool.duly, expected a table with folder and store"),
        (
            "[tool.duly]\nfodler = 'shop'",
            "pyproject.toml: got the key 'fodler' in [tool.duly], expected folder and store only",
        ),
        (
            "[tool.duly]\nfolder = 3",
            "pyproject.toml: got 3 for folder in [tool.duly], expected text such as 'backend'",
        ),
        (
            "[tool.duly]\nstore = ''",
            "pyproject.toml: got '' for store in [tool.duly], expected text such as 'sqlite:///.duly/data.db'",
        ),
        ("# \udce4", "pyproject.toml cannot be read: 'utf-8' codec can't decode byte 0xe4 in position 2"),
    ],
)
@pytest.mark.parametrize("command", [["dev"], ["run", "notes:count"], ["jobs", "list"], ["crons", "list"]])
def test_a_wrong_pyproject_is_one_sentence_with_the_file_and_the_reason(
    project: Path, command: list[str], content: str, message: str
) -> None:
    (project / "pyproject.toml").write_text(content, errors="surrogateescape")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    [line] = result.output.splitlines()
    assert line.startswith(f"Error: {message}")


def test_a_pyproject_that_cannot_be_read_says_so(project: Path) -> None:
    (project / "pyproject.toml").mkdir()
    assert "pyproject.toml cannot be read: " in CliRunner().invoke(main, ["jobs", "list"]).output


@pytest.mark.parametrize("content", [None, "", "[tool.others]\nfodler = 3", "[tool.duly]"])
def test_a_pyproject_that_says_nothing_of_duly_leaves_the_defaults(project: Path, content: str | None) -> None:
    if content is not None:
        (project / "pyproject.toml").write_text(content)
    assert options.default_folder() == "backend"


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_a_project_in_place_of_its_functions_is_refused(project: Path, command: str) -> None:
    (project / "shop" / "backend").mkdir(parents=True)
    (project / "shop" / "pyproject.toml").write_text("[tool.duly]\nfolder = 'backend'")
    result = CliRunner().invoke(main, [command, "shop"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: got the folder 'shop', which is a project ([tool.duly] in its pyproject.toml), expected the folder of"
        f" its functions: run duly {command} there, without FOLDER\n"
    )


def test_a_project_may_be_its_own_folder_of_functions(project: Path) -> None:
    for content in ("[tool.duly]\nfolder = '.'", "[tool.duly]\nstore = 'sqlite:///x.db'", ""):
        (project / "pyproject.toml").write_text(content)
        assert not options.is_project(".")


def test_options_on_the_command_line_need_no_pyproject(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.duly")
    assert "there is no store at " in CliRunner().invoke(main, ["jobs", "list", "--store", "sqlite:///x.db"]).output


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--plan"], ["jobs", "list"], ["run", "notes:count"]])
def test_a_server_that_cannot_be_reached_is_named_without_its_password(project: Path, command: list[str]) -> None:
    (project / "backend").mkdir()
    result = CliRunner().invoke(main, [*command, "--store", "postgresql://shop:secret@127.0.0.1:1/shop"])
    assert result.exit_code == 1
    assert result.output.startswith(
        "Error: StoreLostError: postgresql://127.0.0.1:1/shop: PostgreSQL cannot be reached: "
    )
    assert "secret" not in result.output


def test_an_address_is_shown_with_its_schema_and_without_its_password() -> None:
    assert options.redacted("postgresql://shop:secret@db/shop?schema=tpyo") == "postgresql://db/shop?schema=tpyo"
    assert options.redacted("postgresql://db/shop") == "postgresql://db/shop?schema=duly"
    assert options.redacted("sqlite:///app.db") == "sqlite:///app.db"
