"""No circle of imports in the report, neither at the head of a module nor within a function."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def test_there_is_an_order_in_which_all_modules_can_be_imported():
    paths = {name_of(path): path for path in CHECKOUT.glob("reports/**/*.py")}
    imports: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                imports[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & set(paths)
            elif isinstance(node, ast.Import):
                imports[name] |= {alias.name for alias in node.names} & set(paths)
    order = list(TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle
    assert len(order) == len(paths) > 30
