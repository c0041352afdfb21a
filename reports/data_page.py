"""Data before any training: tables, warnings and contact sheets of real patches, as text and as one HTML file.

The page shows patients' images: it is for the person who holds the data, on the machine that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from reports.pictures import Picture
from reports.template import HEAD, fill

PRIVATE = "This page shows images of patients and names of files. It belongs on the machine that holds the data."
_PAGE = (
    HEAD
    + """
<body>
<header><div>
<h1>{{ title }}</h1>
{% if view.description %}<p class="lead">{{ view.description }}</p>{% endif %}
<p class="note">{{ private }}</p>
{% if view.problems %}<div class="status failed" role="status">
<p><strong>{{ view.problems|length }} problems keep this data from being used.</strong></p></div>
{% elif view.warnings %}<div class="status interrupted" role="status">
<p><strong>Usable, with {{ view.warnings|length }} warnings.</strong></p>
{% for line in view.warnings %}<p>{{ line }}</p>{% endfor %}</div>
{% else %}<div class="status completed" role="status"><p><strong>Usable, no warnings.</strong></p></div>
{% endif %}
</div></header>
<main>
{% if view.problems %}<h2>Problems</h2>{{ plain_table(problems) }}{% endif %}
{% if view.problems and view.warnings %}<h2>Warnings</h2>
{% for line in view.warnings %}<p>{{ line }}</p>{% endfor %}{% endif %}
{% for table in view.tables %}{{ plain_table(table) }}{% endfor %}
{% if view.sheets %}<h2>Training patches</h2>
{% for caption, sheet in view.sheets %}{{ picture(sheet, caption) }}{% endfor %}{% endif %}
</main>
<footer><div>Made by polycentre.</div></footer>
</body></html>
"""
)


@dataclass
class DataView:
    """What there is to show.

    tables: {"caption", "header", "text" (which columns are words), "rows"}. problems: (centre, code, text). sheets:
    (caption, picture).
    """

    title: str
    description: str = ""
    tables: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    sheets: list[tuple[str, Picture]] = field(default_factory=list)


def data_page(view: DataView) -> str:
    """The page as one self-contained file."""
    return fill(
        _PAGE, title=f"{view.title} (data)", view=view, private=Markup.escape(PRIVATE), problems=_problems(view)
    )


def data_text(view: DataView) -> str:
    """The same without pictures, in columns of text."""
    parts = [_aligned(table) for table in view.tables]
    if view.problems:
        parts.insert(0, _aligned(_problems(view)))
    if view.warnings:
        parts.append("\n".join(f"warning: {line}" for line in view.warnings) + "\n")
    return "\n".join(parts)


def _problems(view: DataView) -> dict[str, Any]:
    return {
        "caption": f"Problems ({len(view.problems)})", "header": ["Centre", "Kind", "What and where"],
        "text": [True, True, True], "rows": view.problems,
    }  # fmt: skip


def _aligned(table: dict[str, Any]) -> str:
    """A table with its columns aligned, numbers to the right; the last column of words is not padded. Without rows its
    caption."""
    rows = [[str(entry) for entry in row] for row in table["rows"]]
    lines: Sequence[Sequence[str]] = [[str(name) for name in table["header"]], *rows] if rows else []
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(table["header"]))]
    text = [str(table["caption"])]
    for line in lines:
        entries = [
            entry.ljust(width) if words else entry.rjust(width)
            for entry, width, words in zip(line, widths, table["text"], strict=True)
        ]
        text.append("  " + "  ".join(entries).rstrip())
    return "\n".join(text) + "\n"
