"""The guides name what is there: no key, kind, command, file or test is missing or made up."""

import re
from pathlib import Path

import pytest

from clients.centre_file import Approval, CentreFile, Log, Minimums, Release, Resources
from federation.wire.code_digest import ALL
from federation.wire.errors import TEXTS
from federation.wire.job import IDENTIFY
from strategies import KINDS

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    str(file.relative_to(CHECKOUT))
    for pattern in ("*.md", "docs/**/*.md", "deploy/*.md")
    for file in CHECKOUT.glob(pattern)
)


def text_of(guide):
    return (CHECKOUT / guide).read_text(encoding="utf-8")


def section(text, title):
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text):
    """Names in backticks in the first column of the tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_key_of_a_centres_file_is_explained():
    keys = set(CentreFile.model_fields) - {"resources", "approve", "release", "minimums", "log"}
    for name, part in (
        ("resources", Resources),
        ("approve", Approval),
        ("release", Release),
        ("minimums", Minimums),
        ("log", Log),
    ):
        keys |= {f"{name}.{key}" for key in part.model_fields}
    assert first_cells(section(text_of("deploy/README.md"), "centre.yaml")) == keys


def test_every_kind_of_answer_is_explained():
    text = section(text_of("deploy/README.md"), "What goes out")
    kinds = {name for name in first_cells(text.partition("The data card:")[0])}
    assert kinds == {name for name, kind in KINDS.items() if not kind.pixels} | {IDENTIFY}


def test_every_code_that_is_named_exists():
    text = section(text_of("deploy/README.md"), "When something is wrong")
    codes = {name for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)}
    assert len(codes) > 8 and codes <= set(TEXTS)


def test_every_package_is_compiled_where_the_node_may_not_write():
    (compiled,) = re.findall(r"compileall -q ([a-z_ ]+)$", text_of("deploy/README.md"), re.MULTILINE)
    assert compiled.split() == sorted([*ALL, "polycentre"])


@pytest.mark.parametrize("guide", DOCUMENTS)
def test_every_link_and_every_file_of_this_project_that_is_named_is_there(guide):
    text = text_of(guide)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or ((CHECKOUT / guide).parent / link).exists(), link
    folders = "|".join([*ALL, "polycentre", "deploy", "docs", "bench", "tests"])
    for name in re.findall(rf"`((?:{folders})/[A-Za-z0-9_/\-.]+\.[a-z]+)`", text):
        assert (CHECKOUT / name).exists(), name


def test_every_test_that_is_named_exists():
    named = re.findall(
        r"`([a-z_]+/test_[a-z_]+\.py)::(test_[a-z_0-9]+)`",
        text_of("docs/threat-model.md") + text_of("docs/security.md"),
    )
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (CHECKOUT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"
