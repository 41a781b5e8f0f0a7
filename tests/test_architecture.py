"""The architecture, enforced: imports run one way, frameworks stay behind their doors, `--help` stays light.

`check_package` reads the source with `ast`, so it sees imports inside functions too, and needs nothing installed.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "distill"

# From the ground up. A module imports from its own row and from the rows above it, never from a row below.
LAYERS = (
    ("errors", "config", "ranges", "settings", "text", "modes", "records", "progress"),
    ("attention",),
    ("terms", "networks", "view", "pictures"),
    ("teacher", "weighting", "guard", "trial", "schedule", "distiller", "proof"),
    ("adapters",),
    ("loading", "scenes", "jobs"),
    ("commands", "cli", "__main__"),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
STRANGERS = {"terms", "networks", "view", "pictures"}  # one row, and none of them knows another
ONLY = {"scenes": {"errors"}}  # stricter than the rows: all that this module may import of ours
DOORS = {  # a framework -> the files that may import it, relative to the package
    "ultralytics": "adapters/ultralytics/*",
    "lightning": "adapters/segment*",
    "pytorch_lightning": "adapters/segment*",
    "monai": "adapters/segment*",
    "matplotlib": "view/*",
}
HEAVY = {"torch", "ultralytics", "numpy", "matplotlib"}  # what `--help` must not wait for


# ---- the checker


def check_package(package: Path, exports: Collection[str] = ()) -> list[str]:
    """Every violation in the package at this path, as `file:line: what, and what is allowed`; empty when all is well.

    `exports` are the public names, which no module may bear: `distill.train` would be the function or the module,
    depending on what was imported first.
    """
    problems = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).as_posix()
        problems += [
            f"{package.name}/{inside}:{line}: {complaint}"
            for line, target in imports(path, package)
            if (complaint := judge(inside, target, package))
        ]
        if inside == "__init__.py":
            continue
        name = path.parent.name if path.name == "__init__.py" else path.stem
        if name in exports:
            problems.append(f"{package.name}/{inside}:1: bears the name of the public {package.name}.{name}")
        if layer_of(inside) not in RANK:
            problems.append(
                f"{package.name}/{inside}:1: in no layer; give {layer_of(inside)} one in LAYERS of this test"
            )
    return list(dict.fromkeys(problems))  # `from x import a, b` is one complaint


def circles(package: Path) -> list[list[str]]:
    """The groups of modules that import each other, at any depth: each module reaches all others of its group."""
    modules = {dotted(path, package): path for path in package.rglob("*.py")}
    modules.pop(package.name)  # the lazy door to everything
    known = {
        name: {home for _, target in imports(path, package) if (home := home_of(target, modules)) not in (None, name)}
        for name, path in modules.items()
    }

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            new = known[ahead.pop()] - seen
            seen |= new
            ahead += new
        return seen

    all_reached = {name: reached(name) for name in modules}
    groups = {
        tuple(sorted(other for other in all_reached[name] if name in all_reached[other]))
        for name in modules
        if name in all_reached[name]
    }
    return [list(group) for group in sorted(groups)]


def dotted(path: Path, package: Path) -> str:
    """`distill.view` for distill/view/__init__.py."""
    return ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")


def home_of(target: str, modules: Collection[str]) -> str | None:
    """The module that a dotted name stands in."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target or None


def layer_of(inside: str) -> str:
    """The top-level module or folder that a path inside the package belongs to."""
    return inside.split("/")[0].removesuffix(".py")


def judge(inside: str, target: str, package: Path) -> str | None:
    """What is wrong with the file at `inside` importing the dotted name `target`, or None."""
    root, _, rest = target.partition(".")
    if root in DOORS and not fnmatchcase(inside, DOORS[root]):
        return f"imports {root}, which only {package.name}/{DOORS[root]} may"
    if root != package.name or inside == "__init__.py":  # the package's own __init__ is the lazy door to everything
        return None
    here, there = layer_of(inside), rest.split(".")[0]
    if here not in RANK or there == "__version__":
        return None
    if there not in RANK:  # a name from the package's __init__, which may stand for any layer
        return None if here in LAYERS[-1] else f"imports {target} through the package; import from its module instead"
    if here in ONLY and there not in ONLY[here] | {here}:
        return f"{here} imports {there}, and may import only {', '.join(sorted(ONLY[here]))}"
    if here != there and {here, there} <= STRANGERS:
        return f"{here} imports {there}; {', '.join(sorted(STRANGERS))} do not know each other"
    if RANK[there] > RANK[here]:
        return f"{here} imports {there}, a later layer ({' < '.join(', '.join(row) for row in LAYERS)})"
    return None


def imports(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted absolute name) of everything the file imports at any depth, but for `if TYPE_CHECKING:` blocks."""
    parts = [package.name, *path.relative_to(package).parent.parts]  # the package that relative imports start from
    for node in walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level, parts)
            # `from distill import view` names a module, `from distill.view import draw` what is in one: both resolve
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"} and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                name = argument.value.lstrip(".")
                yield node.lineno, absolute(name, len(argument.value) - len(name), parts)


def absolute(name: str, level: int, parts: list[str]) -> str:
    """The absolute dotted name of `level` dots followed by `name`, seen from the package `parts`."""
    base = parts[: len(parts) - level + 1] if level else []
    return ".".join([*base, *([name] if name else [])])


def called(node: ast.Call) -> str:
    """The last part of the name of what is called: `import_module` for `importlib.import_module(...)`."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """`ast.walk` that leaves out the bodies of `if TYPE_CHECKING:`, which never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in {
            getattr(child.test, "id", ""),
            getattr(child.test, "attr", ""),
        }:
            for other in child.orelse:
                yield other
                yield from walk(other)
            continue
        yield child
        yield from walk(child)


def exported(package: Path) -> list[str]:
    """The package's `__all__`, from a fresh interpreter so that this one stays without the package's imports."""
    code = f"import {package.name}; print(*getattr({package.name}, '__all__', ()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    return run.stdout.split()


# ---- the package


def test_imports_run_one_way():
    problems = check_package(PACKAGE, exported(PACKAGE))
    assert not problems, "\n".join(["the architecture is broken:", *problems])


def test_no_modules_import_each_other():
    assert circles(PACKAGE) == []


def test_help_imports_nothing_heavy():
    if not (PACKAGE / "__main__.py").exists():
        pytest.skip("there is no distill/__main__.py yet")
    command = [sys.executable, "-X", "importtime", "-m", "distill", "--help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "usage" in run.stdout.lower()
    modules = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "distill" in modules, "the list of imports was not read"
    heavy = sorted(HEAVY & {module.partition(".")[0] for module in modules})
    assert not heavy, f"`distill --help` imports {', '.join(heavy)}"


# ---- the repository


def tracked() -> list[Path]:
    """The files that are in the repository or about to be (not ignored); without git, those of the main folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in run.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("distill", "configs", "tests", "tools", "benchmarks", "docs", "attention_visualizations")
        paths = [ROOT / "README.md", *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def absolute_paths(text: str) -> list[str]:
    """Paths into somebody's machine: under the home folders or a working folder at the root."""
    return re.findall(r"(?<![\w.:/~-])/(?:work|root|home|Users)/[\w./-]+", text)


def test_no_paths_of_one_machine():
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{path.relative_to(ROOT)}: {name}" for name in absolute_paths(text)]
    assert not found, "\n".join(found)


def test_no_large_files():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    large = [f"{path}: {size / 1e6:.1f} MB" for path, size in sizes.items() if size > 10_000_000]
    assert not large, "\n".join(large)


# ---- the checker itself: each rule is seen to fire, and what is allowed passes


def plant(folder: Path, files: dict[str, str]) -> Path:
    """A package `distill` under `folder` with these sources by path."""
    package = folder / "distill"
    for inside, source in {"__init__.py": "", **files}.items():
        path = package / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return package


@pytest.mark.parametrize("back", ["from distill.jobs import a\n", "def f():\n    from distill.jobs.a import x\n"])
def test_a_circle_is_found(tmp_path, back):
    files = {
        "jobs/__init__.py": "",
        "jobs/a.py": "from distill.jobs.b import y\n",
        "jobs/b.py": "from . import c\n",
        "jobs/c.py": back,
        "jobs/d.py": "from distill.jobs import a\n",
    }
    assert circles(plant(tmp_path, files)) == [["distill.jobs.a", "distill.jobs.b", "distill.jobs.c"]]
    assert circles(plant(tmp_path / "open", {**files, "jobs/c.py": ""})) == []


ALLOWED = {
    "attention/maps.py": "from ..errors import E\nfrom . import taps\nimport torch, distill.text\n",
    "view/sheet.py": "import matplotlib.pyplot as plt\nfrom distill.attention import maps\n",
    "terms/response.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from distill.jobs import training\n",
    "teacher.py": "from distill.schedule import Ramp\nfrom distill import attention\n",
    "adapters/ultralytics/trainers.py": "from ultralytics.nn import tasks\nfrom ... import teacher\n",
    "adapters/segment.py": "import monai, lightning\n",
    "adapters/segment_data/loader.py": "import monai\n",
    "loading.py": "def door():\n    from distill.adapters import ultralytics\n    from distill import scenes\n",
    "scenes.py": "from distill.errors import E\n",
    "jobs/training.py": "import_module('distill.adapters.ultralytics')\nimport distill.scenes\n",
    "commands/train_command.py": "from distill import __version__, train\n",
    "cli.py": "from .commands import train_command\n",
    "__init__.py": "def __getattr__(name):\n    from distill.jobs import training\n",
}

VIOLATIONS = {
    "a later layer": ("attention/maps.py", "from distill.terms import at\n", "attention imports terms"),
    "a later layer, plain import": ("errors.py", "import distill.attention.maps\n", "errors imports attention"),
    "a later layer, relative": ("teacher.py", "from . import adapters\n", "teacher imports adapters"),
    "relative, two levels": ("adapters/ultralytics/x.py", "from ...jobs import training\n", "adapters imports jobs"),
    "in a function": ("distiller.py", "def f():\n    from distill.jobs import checks\n", "distiller imports jobs"),
    "else of TYPE_CHECKING": (
        "config.py",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from distill.view import sheet\n",
        "config imports view",
    ),
    "by name": ("terms/at.py", "import importlib\nimportlib.import_module('distill.cli')\n", "terms imports cli"),
    "by relative name": ("schedule.py", "import_module('.loading', __package__)\n", "schedule imports loading"),
    "jobs know no commands": ("jobs/training.py", "from distill.commands import train\n", "jobs imports commands"),
    "terms and networks": ("terms/at.py", "from distill.networks import unet\n", "terms imports networks"),
    "view and terms": ("view/sheet.py", "from distill.terms import at\n", "view imports terms"),
    "scenes stand alone": ("scenes.py", "from distill.attention import maps\n", "scenes imports attention"),
    "adapters know no scenes": ("adapters/segment.py", "from distill import scenes\n", "adapters imports scenes"),
    "through the package": ("jobs/training.py", "from distill import compare\n", "through the package"),
    "ultralytics in jobs": ("jobs/training.py", "def f():\n    import ultralytics.utils\n", "imports ultralytics"),
    "ultralytics beside its adapter": ("adapters/segment.py", "from ultralytics import YOLO\n", "imports ultralytics"),
    "ultralytics by name": ("loading.py", "__import__('ultralytics')\n", "imports ultralytics"),
    "monai in a term": ("terms/dice.py", "from monai.losses import DiceLoss\n", "imports monai"),
    "lightning in ultralytics": ("adapters/ultralytics/x.py", "import lightning\n", "imports lightning"),
    "matplotlib in jobs": ("jobs/analysis.py", "from matplotlib import pyplot\n", "imports matplotlib"),
    "matplotlib at the door": ("__init__.py", "import matplotlib\n", "imports matplotlib"),
    "no layer": ("helpers.py", "", "in no layer; give helpers one"),
    "a public name": ("jobs/compare.py", "", "bears the name of the public distill.compare"),
    "a public name, a folder": ("view/train/__init__.py", "", "bears the name of the public distill.train"),
}


def test_checker_passes_what_is_allowed(tmp_path):
    assert check_package(plant(tmp_path, ALLOWED), exports=["train", "compare"]) == []


@pytest.mark.parametrize("case", VIOLATIONS)
def test_checker_fires(tmp_path, case):
    inside, source, expected = VIOLATIONS[case]
    package = plant(tmp_path, {**ALLOWED, inside: source})
    problems = check_package(package, exports=["train", "compare"])
    assert len(problems) == 1, problems
    assert expected in problems[0]
    assert re.match(r"distill/[\w/]+\.py:\d+: ", problems[0])


def test_checker_names_the_line(tmp_path):
    package = plant(tmp_path, {"terms/at.py": "import torch\n\ndef f():\n    from distill.jobs import x\n"})
    (problem,) = check_package(package)
    assert problem.startswith("distill/terms/at.py:4: terms imports jobs, a later layer (errors, ")


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_absolute_paths_are_seen(folder):
    path = "/".join(["", folder, "me", "x.py"])
    assert absolute_paths(f"open('{path}')") == [path]
    assert absolute_paths(f"https://example.org{path}  some{path}  .{path}") == []
