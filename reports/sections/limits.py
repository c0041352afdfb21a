"""The section "Limits": how to read the page, and what it does not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basics.words import listed
from reports.section import Context, Section
from reports.study import Study
from reports.tables import EvaluationSet

_TEMPLATE = """
<ul>{% for line in limits %}<li>{{ line }}</li>{% endfor %}</ul>
<p><strong>This is research software, not a medical device. Nothing here may guide the care of a patient.</strong></p>
"""


def _build(context: Context) -> dict[str, Any]:
    return {"limits": _limits(context.study, context.sets)}


LIMITS = Section("limits", "Limits", "How to read this, and its limits", _build, _TEMPLATE)


def phantom_centres(study: Study) -> list[str]:
    """The centres whose data is computed, in the scenario's order: their own phantoms, or their part of dealt-out ones."""
    partition = study.settings.get("partition") or {}
    # The resolved scenario names the archive once, in the partition, and not again at its centres.
    dealt = partition.get("centres") or () if _is_phantom(partition.get("source")) else ()
    return [name for name, centre in study.centres.items() if name in dealt or _is_phantom(centre.get("data"))]


def _is_phantom(data: Mapping[str, Any] | None) -> bool:
    return data is not None and (data.get("source") == "phantom" or _is_phantom(data.get("archive")))


def _limits(study: Study, sets: dict[tuple[str, str], EvaluationSet]) -> list[str]:
    phantoms = phantom_centres(study)
    small = [f"{centre} ({s.patients} patients)" for (_, centre), s in sets.items() if s.patients < 100]
    lines = [
        "“Helped” and “hurt” are said only where at least three repeats agree, by more than their standard deviation, "
        "and where the 95 % interval over at least ten test patients leaves out zero (where the predictions stayed at the centres "
        "there is no such interval, and the repeats alone decide). Many arms and settings "
        "are compared, and no correction is made for that: a single “helped” among many rows may be chance.",
        "A repeat trains the classifier anew, on a new draw of the receiver's patients where fewer than all are "
        "used. Splits and generators are the same "
        "in all repeats; another split or another training of the generator may give another answer.",
        "AUROC and AUPRC do not depend on a threshold; accuracy, balanced accuracy and F1 use 0.5. AUPRC of a "
        "classifier that knows nothing is the prevalence of the positive class, which differs between test sets.",
        "A control explains a result and is not a candidate itself: more of the receiver's own images, for instance, tell a gain "
        "by new information from a gain by more images. An upper bound moves real images, which the other arms avoid.",
        "Whether a generator gives away patients it was trained on is not measured on this page.",
    ]
    if small:
        named = ", ".join(dict.fromkeys(small))
        lines.insert(0, f"Small test sets: {named}. Differences of a few points are within chance there.")
    if phantoms:
        lines.insert(
            0,
            f"Computed phantoms, not patients: {listed(phantoms)}. The numbers show that the machinery works, not "
            "what would happen in a hospital.",
        )
    return lines
