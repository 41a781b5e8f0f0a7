"""The documentation, held to the code: its examples run, its links lead somewhere, its command lines are accepted."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import distill
from distill import cli
from distill.commands.options import given
from distill.config import ALIASES, settings_from, split
from distill.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SHELL = {"", "bash", "sh", "shell", "console"}  # languages of fences that may hold command lines
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ \t]*$", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
PLAN = "design.md"  # has stubs, and names what is to come
PLACEHOLDER = re.compile(r"^[A-Z]+$|\$")  # `--weight W` and `--seed $s`: the reader's own value
OTHERS = ("pip", "python", "make", "yolo", "git", "pre-commit", ".venv/", "pytest")  # whose options are not ours


@dataclass(frozen=True)
class Snippet:
    """A fenced block or a code span: the line that it begins at, its language ("span" for a span), its text."""

    page: Path
    line: int
    language: str
    text: str
    run: bool = False
    output: str | None = None  # of the ```text block that follows one to be run

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def snippets(page: Path) -> list[Snippet]:
    """Every fenced block and code span of a page."""
    source = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(source):
        line = source.count("\n", 0, fence.start()) + 1
        marked = source[: fence.start()].rstrip().endswith("<!-- run -->")
        after = FENCE.match(source, len(source) - len(source[fence.end() :].lstrip()))
        output = after["text"] if after and after["language"] == "text" else None
        found.append(Snippet(page, line, fence["language"], fence["text"], marked, output if marked else None))
    prose = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), source)
    found += [Snippet(page, prose.count("\n", 0, s.start()) + 1, "span", s[1]) for s in SPAN.finditer(prose)]
    return found


SNIPPETS = [snippet for page in PAGES for snippet in snippets(page)]
PYTHON = [snippet for snippet in SNIPPETS if snippet.language == "python"]
RUN = [snippet for snippet in PYTHON if snippet.run]


def shell_lines(snippet: Snippet) -> Iterator[str]:
    """The command lines in a snippet: continued lines joined, prompts and variables in front dropped, pipes cut."""
    if snippet.language not in SHELL | {"span"}:
        return
    for line in snippet.text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^\s*\$ ", "", line).strip()
        for part in re.split(r"\s(?:&&|\|\|?|;|>>?|&)(?:\s|$)", line):
            yield re.sub(r"^(?:[A-Z_]+=\S*\s+)+", "", part.strip())


def commands() -> list[tuple[Snippet, list[str]]]:
    """Every `distill ...` of the documentation, as words; `...` stands for more of the same and is left out."""
    found = []
    for snippet in SNIPPETS:
        if snippet.page.name == PLAN:
            continue
        for line in shell_lines(snippet):
            if line.startswith("distill ") and not line.startswith("distill ="):
                found.append((snippet, [word for word in shlex.split(line, comments=True)[1:] if word != "..."]))
    return found


def parse(words: list[str]) -> argparse.Namespace | str:
    """What the real parser makes of a command line; its complaint if it refuses it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return cli.parser().parse_args(words)
    except SystemExit:  # --help, --version
        return argparse.Namespace()
    except InputError as error:
        return str(error)


def trainer_keys() -> set[str]:
    """The names of Ultralytics' settings, read from its file: importing it would take seconds."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        pytest.skip("ultralytics is not installed")
    default = Path(spec.origin).parent / "cfg" / "default.yaml"
    return set(yaml.safe_load(default.read_text(encoding="utf-8")))


def complaint_about(words: list[str], known: set[str]) -> str | None:
    """What is wrong with a `distill ...` command line, or None; refusals that a page speaks of are not wrong."""
    arguments = parse(words)
    if isinstance(arguments, str):
        return arguments
    if not hasattr(arguments, "arguments"):
        return None
    try:
        ours, theirs = split(given(arguments))
        settings_from({key: value for key, value in ours.items() if not PLACEHOLDER.search(str(value))})
    except InputError as error:
        return str(error)
    unknown = sorted(set(theirs) - known)
    return f"no settings of Ultralytics': {', '.join(unknown)}" if unknown else None


def options() -> set[str]:
    """Every option of every command."""
    found: set[str] = set()
    parsers: list[argparse.ArgumentParser] = [cli.parser()]
    while parsers:
        for action in parsers.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#{1,6}\s+(.+?)\s*$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# ---- the reader of the pages is itself checked


def test_the_reader_finds_what_is_there(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `distill info`.\n<!-- run -->\n```python\nprint(1)\n```\n\n```text\n1\n```\n"
        "```bash\n$ A=1 distill train --student s.pt \\\n  epochs=3 | tail  # so\n```\n"
        "```python\nx = '`no span`'\n```\n"
    )
    found = snippets(page)
    assert [(s.line, s.language, s.run, s.output) for s in found] == [
        (3, "python", True, "1\n"),
        (7, "text", False, None),
        (10, "bash", False, None),
        (14, "python", False, None),
        (1, "span", False, None),
    ]
    assert next(shell_lines(found[2])) == "distill train --student s.pt    epochs=3"
    assert list(shell_lines(found[-1])) == ["distill info"]


def test_a_wrong_command_line_is_noticed() -> None:
    known = {"epochs"}
    good = ["train", "--student", "s.pt", "--layers", "P3,P4", "--weight", "W", "epochs=3"]
    assert complaint_about(good, known) is None
    assert "'--student'" in str(complaint_about(["train", "--studnet", "s.pt"], known))
    assert "epocs" in str(complaint_about(["train", "--student", "s.pt", "epocs=3"], known))
    assert "form" in str(complaint_about(["train", "--form", "round"], known))
    assert "invalid choice" in str(complaint_about(["tame"], known))


# ---- the pages


@pytest.mark.parametrize("snippet", RUN, ids=str)
def test_an_example_prints_what_the_page_says(snippet: Snippet) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet.text, str(snippet), "exec"), {"__name__": "__example__"})
    assert snippet.output is not None, f"{snippet}: no ```text block follows"
    assert printed.getvalue() == snippet.output


def test_the_attention_map_page_has_examples_that_run() -> None:
    assert any(snippet.page.name == "attention-map.md" for snippet in RUN)


def test_every_python_block_is_python_and_names_what_is_public() -> None:
    for snippet in PYTHON:
        if snippet.page.name == PLAN:
            continue
        tree = ast.parse(snippet.text, str(snippet))
        names = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "distill"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "distill":
                names |= {alias.name for alias in node.names}
        assert names <= set(distill.__all__), f"{snippet}: not public: {sorted(names - set(distill.__all__))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in slugs(file)):
            dead.append(target)
    assert not dead


EXAMPLE = "--similar-"  # options of the page's own term, which its test runs


def without_example(words: list[str]) -> list[str]:
    """A command line without the options, and the values, of a term that a page writes."""
    values = {place + 1 for place, word in enumerate(words) if word.startswith(EXAMPLE)}
    return [word for place, word in enumerate(words) if place not in values and not word.startswith(EXAMPLE)]


def test_every_command_line_is_accepted() -> None:
    known = trainer_keys() | set(ALIASES)
    wrong = [
        f"{snippet}: distill {shlex.join(words)}: {complaint}"
        for snippet, words in commands()
        if (complaint := complaint_about(without_example(words), known))
    ]
    assert not wrong, "\n".join(wrong)
    assert commands()


def test_every_option_that_is_named_exists() -> None:
    known = options()
    wrong = [
        f"{snippet}: {option}"
        for snippet in SNIPPETS
        for line in shell_lines(snippet)
        if not line.startswith(OTHERS)
        for option in OPTION.findall(line)
        if option not in known and not option.startswith(EXAMPLE)
    ]
    assert not wrong, "\n".join(wrong)


def with_neighbours(script: Path) -> str:
    """The source of a script and of the scripts beside it that it imports; empty where there is none."""
    source = script.read_text(encoding="utf-8") if script.is_file() else ""
    beside = [script.parent / f"{name}.py" for name in re.findall(r"^from (\w+) import", source, re.MULTILINE)]
    return "\n".join([source, *(with_neighbours(other) for other in beside if other.is_file())]).strip()


def test_every_script_that_is_named_exists_and_has_the_options_named() -> None:
    wrong = []
    for snippet in SNIPPETS:
        for line in shell_lines(snippet):
            script = re.match(r"(?:\S*python3? )(\S+\.py)\b(.*)", line)
            if not script or not script[1].startswith(("tools/", "benchmarks/")):
                continue
            source = with_neighbours(ROOT / script[1])
            wrong += [f"{snippet}: {script[1]}"] * (not source)
            wrong += [f"{snippet}: {option}" for option in OPTION.findall(script[2]) if f'"{option}"' not in source]
    assert not wrong, "\n".join(wrong)
