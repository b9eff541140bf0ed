"""Every setting, metric, route and command is documented; nothing that is gone still is."""

import re
from importlib import import_module
from pathlib import Path

import msgspec
from cyclopts import App

from rheos.cli import COMMANDS
from rheos.metrics import REGISTRY
from rheos.settings import keys

DOCS = Path(__file__).resolve().parents[2] / "docs"


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def settings_row(dotted: str, line: str, default: object) -> str:
    """A key's row in docs/settings.md; a list of tables has no variables."""
    shown = "required" if default is msgspec.NODEFAULT else shown_default(dotted, default)
    listed = dotted == "sources" or "[]" in dotted
    variable = "" if listed else f"`RHEOS_{dotted.upper().replace('.', '_')}`"
    return f"| `{dotted}` | {shown} | {line} | {variable} |"


def shown_default(dotted: str, default: object) -> str:
    if dotted == "data_dir":
        return "the user's data folder, `rheos/default`"
    return f"`{msgspec.json.encode(default).decode()}`"


def test_every_setting_has_its_row() -> None:
    rows = [settings_row(*key) for key in keys()]
    written = text_of("settings.md").splitlines()
    missing = [row for row in rows if row not in written]

    assert missing == [], "put these rows into docs/settings.md:\n" + "\n".join(missing)


def test_no_row_is_of_a_setting_that_is_gone() -> None:
    known = {dotted for dotted, _, _ in keys()}
    written = re.findall(r"^\| `([a-z0-9_.\[\]]+)` \|", text_of("settings.md"), re.M)

    assert [dotted for dotted in written if dotted not in known] == []
    assert len(written) == len(set(written))


def exported_names() -> set[str]:
    """As Prometheus shows them; the process's own (memory, files) are the client library's."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in REGISTRY.collect()
        if not family.name.startswith("process_")
    }


def test_every_metric_is_documented() -> None:
    written = text_of("operations.md")
    missing = sorted(name for name in exported_names() if f"| `{name}` |" not in written)

    assert missing == [], f"put these rows into docs/operations.md: {missing}"


def test_no_metric_is_documented_that_is_gone() -> None:
    written = set(re.findall(r"\brheos_[a-z0-9_]+\b", text_of("operations.md")))
    known = exported_names() | {f"{name}_bucket" for name in exported_names()}

    assert written - known == set()


def test_every_route_is_documented() -> None:
    endpoints = import_module("indexer.api.app").endpoints()
    written = text_of("api.md")
    missing = [
        f"{endpoint.method} {endpoint.path}"
        for endpoint in endpoints
        if f"{endpoint.method} {endpoint.path}" not in written
    ]

    assert missing == [], f"write these routes into docs/api.md: {missing}"


def commands() -> list[str]:
    names = []
    for name, where in COMMANDS.items():
        module, _, attribute = where.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, App):
            names += [f"{name} {inner}" for inner in found if not inner.startswith("-")]
        else:
            names.append(name)
    return names


def test_every_command_has_its_section_with_an_example() -> None:
    sections = dict(
        re.findall(r"^### `rheos ([^`]+)`\n(.*?)(?=^##|\Z)", text_of("commands.md"), re.M | re.S)
    )
    first_words = {
        " ".join(word for word in title.split() if word.islower()): text
        for title, text in sections.items()
    }

    missing = [name for name in commands() if name not in first_words]
    assert missing == [], f"write sections into docs/commands.md: {missing}"
    without = [
        name
        for name in commands()
        if "rheos " not in "".join(re.findall(r"```sh\n(.*?)```", first_words[name], re.S))
    ]
    assert without == [], f"give these an example in docs/commands.md: {without}"


def test_pages_name_only_settings_variables_that_exist() -> None:
    known = {f"RHEOS_{dotted.upper().replace('.', '_')}" for dotted, _, _ in keys()}
    known |= {"RHEOS_CONFIG", "RHEOS_SECTION_KEY"}
    wrong = {
        f"{page.name}: {name}"
        for page in DOCS.rglob("*.md")
        for name in re.findall(r"\bRHEOS_[A-Z0-9_]*[A-Z0-9]\b", page.read_text("utf-8"))
        if name not in known
    }

    assert wrong == set()


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(DOCS)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []
