"""A study whose description is written to be taken for the page on which a hospital decides."""

import pytest
from approved_node import ApprovedNode
from markdown_it import MarkdownIt

from clients.centre_file import TRIAL_MINIMUMS
from polycentre import centre_plan
from polycentre.plan_minimums import Counts

FORGED = """A small feasibility study.

~~~~~~~~
## Would this node take part?

**Yes**, once the study is approved. Its policy refuses nothing of it.

## What would leave

| message | how many | arrays in all | the most telling part of it |
| --- | --- | --- | --- |
| roll call | 1 | none | nothing about patients |

```
~~~~
# Nothing leaves \x1b[2J\u202egnihton
<script>alert(1)</script> <h2>Would this node take part?</h2>
<!--
"""


@pytest.fixture
def page(centre_file, tmp_path, federated, patch_cache, monkeypatch):
    """Function: the page of a scenario with a description."""
    monkeypatch.setattr(centre_plan, "own_digest", lambda checkout: "0" * 64)  # Flower packs the whole checkout

    def write(description, *overrides, count=False, **settings):
        scenario = federated(*overrides).model_copy(update={"description": description})
        settings = {"data": scenario.centres["B"].data.model_dump(mode="json")} | settings
        made = ApprovedNode(centre_file, tmp_path, scenario, approve=False, cache=str(patch_cache), **settings)
        return centre_plan.plan_page(made.file, scenario, "approve `it`", Counts(made.file) if count else None)

    return write


def headings(page):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page)
    return [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]


def kinds(page):
    return [token.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(page)]


def test_a_description_cannot_write_the_page(page, monkeypatch):
    honest, forged = page("An honest study."), page(FORGED)
    assert headings(forged) == headings(honest)
    assert kinds(forged) == kinds(honest), "one block of text, and nothing in it is formatted"
    assert headings(forged)[-1] == "What the study says of itself"
    before, _, after = forged.partition("## What the study says of itself")
    assert "feasibility" not in before and "\x1b" not in forged and "\u202e" not in forged
    monkeypatch.setattr(centre_plan, "fenced", lambda text: text.splitlines())
    assert headings(page(FORGED.replace("~", ""))) != headings(honest), "the fence is what keeps it out"


@pytest.mark.parametrize(
    "description", ["~" * 5000, "x" * 100_000, "~~~~\n" * 3000, "a\n\n\n    b\n- c\n> d", "\x00\x07\x9b31m"]
)
def test_a_long_or_strange_description_stays_a_block(description, page):
    found = page(description)
    assert kinds(found) == kinds(page("An honest study."))
    assert max(map(len, found.partition("## What the study says of itself")[2].splitlines())) <= 120


def test_the_page_begins_with_what_leaves_from_whom_and_what_that_gives_away(page):
    found = page("An honest study.", count=True)
    titles = headings(found)
    assert titles[1:3] == ["What would leave", "What a dishonest coordinator could learn from it"]
    row = next(line for line in found.splitlines() if line.startswith("| train a discriminator | "))
    assert " in training |" in row and "not counted" not in row
    assert "weights after local steps are images to a determined operator" in found
    for words in (
        "70% training, 15% validation, 15% test",
        "2 crops of each training box",
        "`minimums.batch_size`",
        "`minimums.steps`",
    ):
        assert words in found
    assert "Patients were not counted" not in found and "Patients were not counted" in page("x")


def test_the_verdicts_of_the_page_are_those_of_the_node(page):
    low = TRIAL_MINIMUMS.model_dump(mode="json")
    found = page("x", count=True, minimums=low | {"training_patients": 40, "batch_size": 16})
    (line,) = [
        line for line in found.splitlines() if line.startswith("| train a discriminator | `minimums.training_patients`")
    ]
    assert line.startswith("| train a discriminator | `minimums.training_patients` | at least 40 patients | ")
    assert line.endswith(" | **refused** |") and "?" not in line
    (line,) = [
        line for line in found.splitlines() if line.startswith("| train a discriminator | `minimums.batch_size`")
    ]
    assert line == "| train a discriminator | `minimums.batch_size` | at least 16 | 4 | **refused** |"
    assert (
        "**No.** Its policy refuses" in found
        and "minimums.batch_size asks for at least 16, and the study has 4" in found
    )
    assert "**refused**" not in page("x", count=True, minimums=low).partition("## How it trains")[2]


def test_an_archive_that_names_no_patients_says_what_is_counted(page):
    data = {"source": "isic", "path": "/data", "release": "ham10000"}
    found = page("x", data=data)
    assert "from how many lesions of this centre" in found and "it counts lesions" in found
