"""The code keeps its shape: imports point upwards, torch is late, functions and files are short, the README's tree is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "teachwhy"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import from names before its own, and from its own package.
ORDER = (
    "errors", "records", "files", "statistics", "comparisons", "sequential", "budget", "shipped", "models", "scenarios", "office",
    "judges", "ambiguity",
    "corpora", "wording", "surface", "quality", "controls", "training", "evaluations", "datacard", "outcomes", "report", "rules", "study",
    "cli", "_registry",
)  # fmt: skip
REGISTRY_MAY = {"evaluations", "models", "office", "rules"}

HEAVY = {"torch", "transformers", "peft"}
HEAVY_AT_TOP = ("models/builtin", "models/checkpoints", "models/local", "models/scoring", "training/")
HEAVY_LATE = (*HEAVY_AT_TOP, "models/chat", "study/worker")

MAX_FUNCTION = 80
MAX_FILE = 500

PUBLIC = {
    "errors": """EXIT_OK EXIT_FINDINGS EXIT_USAGE EXIT_INCONCLUSIVE EXIT_CAP EXIT_INTERRUPTED CAP_WORDS
        TeachwhyError UserError LeakError MissingExtra CellFailed CapReached""",
    "files": """CARD T cache_dir canonical_json changed_files cell_id code_commit derive_seed explain_os_error hash_file hash_folder
        hash_text library_versions now parse_record publish read_card read_jsonl read_yaml write_card write_csv write_jsonl write_text
        lock_folder""",
    "shipped": "ROOT data_files find shipped_hash shipped_path",
    "cli": "main",
}


def module_name(path: Path) -> str:
    """`study/cells` for src/teachwhy/study/cells.py."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def first_name(path: Path) -> str:
    """The module's or its package's name under teachwhy."""
    return module_name(path).split("/")[0]


def imports(tree: ast.AST, *, late: bool | None = None) -> Iterator[str]:
    """Full dotted names imported: at the top (late=False), in functions (True), or both; those for types alone left out."""

    def visit(node: ast.AST, inside: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if late is None or late is inside:
                if isinstance(child, ast.Import):
                    yield from (alias.name for alias in child.names)
                elif isinstance(child, ast.ImportFrom):
                    yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from visit(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return visit(tree, False)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_only_upwards(path: Path) -> None:
    own = first_name(path)
    if own in ("__init__", "__main__"):
        return
    assert own in ORDER, f"{own} has no place in ORDER: give it one"
    for name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "teachwhy" or len(parts) == 1 or parts[1] in (own, "__version__") or own == "cli":
            continue
        if own == "_registry":
            assert parts[1] in REGISTRY_MAY, f"_registry imports {name}: what is heavy has no place there"
        assert ORDER.index(parts[1]) < ORDER.index(own), f"{own} imports {name}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_torch_is_imported_only_where_weights_are_handled(path: Path) -> None:
    tree, name = ast.parse(path.read_text()), module_name(path)
    top = {found.split(".")[0] for found in imports(tree, late=False)} & HEAVY
    late = {found.split(".")[0] for found in imports(tree, late=True)} & HEAVY
    assert not top or name.startswith(HEAVY_AT_TOP), f"{name} imports {sorted(top)} at its top"
    assert not late or name.startswith(HEAVY_LATE), f"{name} imports {sorted(late)} in a function"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_functions_and_files_are_short(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= MAX_FILE, f"{path.name} has {source.count(chr(10))} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or 0) - node.lineno + 1
            assert n_lines <= MAX_FUNCTION, f"{path.name}: {node.name} has {n_lines} lines"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_with_code_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), f"{path.name} begins without a docstring"


def public_names(path: Path) -> set[str]:
    """What a module defines without a leading underscore (imports are not its own)."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_those_listed(name: str) -> None:
    path = PACKAGE / f"{name}.py"
    assert public_names(path if path.exists() else PACKAGE / name / "__init__.py") == set(PUBLIC[name].split())


def test_package_exports_its_version_alone() -> None:
    import teachwhy

    assert teachwhy.__all__ == ["__version__"]


def read_tree() -> dict[str, str]:
    """Path -> comment, from README's fenced block of lines `path  # comment`; an indented line lies in the folder above it."""
    readme = ROOT / "README.md"
    assert readme.is_file(), "README.md is missing"
    for block in re.findall(r"^```\w*\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        if len(lines) >= 8 and all(re.match(r"\s*\S+\s+# \S", line) for line in lines) and "src/teachwhy" in block:
            return dict(_read_lines(lines))
    raise AssertionError("README.md has no tree: a fenced block, one line a path, each `path  # comment`, with src/teachwhy/ in it")


def _read_lines(lines: list[str]) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str]] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        name, comment = (part.strip() for part in line.split("#", 1))
        while above and above[-1][0] >= indent:
            above.pop()
        path = (above[-1][1] if above else "") + name
        if name.endswith("/"):
            above.append((indent, path))
        yield path.rstrip("/"), comment


def test_every_path_in_the_readme_tree_is_on_the_disk() -> None:
    missing = [path for path in read_tree() if not (ROOT / path).exists()]
    assert not missing, f"README's tree names what is not there: {missing}"


def test_every_module_is_in_the_readme_tree() -> None:
    """Everything right under src/teachwhy; and of a package of which one file is listed, every file."""
    tree = read_tree()
    hidden = ("__init__.py", "__main__.py", "__pycache__", "py.typed")
    folders = [PACKAGE, *(path for path in PACKAGE.iterdir() if any(Path(name).parent == path.relative_to(ROOT) for name in tree))]
    wanted = {path.relative_to(ROOT).as_posix() for folder in folders for path in folder.iterdir() if path.name not in hidden}
    assert not wanted - set(tree), f"README's tree lacks {sorted(wanted - set(tree))}"


def test_every_top_folder_is_in_the_readme_tree() -> None:
    made = {"build", "dist", "logs", "runs"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name not in made}
    filled = {name for name in folders if any(path.is_file() for path in (ROOT / name).rglob("*"))}
    named = {path.split("/")[0] for path in read_tree()}
    assert not filled - named, f"README's tree lacks {sorted(filled - named)}"
