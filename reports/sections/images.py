"""The section "Images": synthetic ones of each generator beside real ones of the centre that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reports.pictures import png
from reports.section import Context, Section
from reports.study import Study

# Of a study with many centres, a few are enough.
_OTHERS = 8

_TEMPLATE = """
{% for s in synthetic %}<h3>{{ s.title }}</h3>
<div class="pair">
<div>{{ picture(s.synthetic, "Synthetic, not chosen by hand: " ~ s.about) }}</div>
<div>{% if s.real %}{{ picture(s.real, "Real training patches of " ~ s.centre ~ ". They are here because all "
     ~ "centres of a simulation are one machine; in a deployment they stay in the hospital.") }}{% endif %}</div>
</div>{% endfor %}
{% if real %}<h3>Real patches of the other centres</h3>
<div class="pair">{% for r in real %}<div>{{ picture(r.picture, r.caption) }}</div>{% endfor %}</div>{% endif %}
"""


def _build(context: Context) -> dict[str, Any] | None:
    synthetic, real = image_pairs(context.record.folder, context.study)
    return {"synthetic": synthetic, "real": real} if synthetic or real else None


IMAGES = Section("samples", "Images", "Images", _build, _TEMPLATE)


def image_pairs(folder: Path, study: Study) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Synthetic grids, each beside the real one of its centre and task; and the real grids of all other centres."""
    synthetic, shown = [], set()
    for path in sorted((folder / "samples").glob("[!.]*.png")):
        name, task = _generator_of(path.stem, study)
        generator = study.generators.get(name, {})
        centre = str(generator.get("centre") or "")
        real = _real_grid(folder, centre, task)
        shown.add(real)
        about = f"{generator.get('model') or 'a package made elsewhere'}" + (f", trained at {centre}" if centre else "")
        if together := generator.get("together"):
            about += (
                f", trained together by {', '.join(together)}"
                if len(together) <= _OTHERS
                else f", trained together by {len(together)} centres"
            )
        if made := study.made(name, task):
            about += f", {', '.join(reversed(made))}"
        synthetic.append({
            "title": name + (f", {task}" if task and len(study.classes) > 1 else ""),
            "centre": centre,
            "about": about + ".",
            "synthetic": png(path.read_bytes(), f"Grid of synthetic images of generator {name}: {about}"),
            "real": png(real.read_bytes(), f"Grid of real training patches of centre {centre}") if real else None,
        })  # fmt: skip
    others = [
        {
            "picture": png(path.read_bytes(), f"Grid of real training patches of centre {path.parts[-3]}"),
            "caption": f"{path.parts[-3]}, {path.stem}",
        }
        for path in sorted(folder.glob("centres/*/samples/[!.]*.png"))
        if path not in shown
    ]
    return synthetic, others[:_OTHERS]


def _generator_of(stem: str, study: Study) -> tuple[str, str]:
    """(generator, task) of the file name `<generator>` or `<generator>-<task>`."""
    if stem in study.generators:
        return stem, next(iter(study.classes)) if len(study.classes) == 1 else ""
    for task in study.classes:
        if stem.endswith(f"-{task}") and stem.removesuffix(f"-{task}") in study.generators:
            return stem.removesuffix(f"-{task}"), task
    return stem, ""


def _real_grid(folder: Path, centre: str, task: str) -> Path | None:
    path = folder / "centres" / centre / "samples" / f"{task}.png"
    return path if centre and task and path.is_file() else None
