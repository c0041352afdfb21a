"""The precision that each model is computed in is part of a run: measured once, written down, and used from then on.

A centre measures which precision is faster on its machine. A stopwatch may answer otherwise on the next day or on a
second machine of the same kind, and then other numbers come out. So the first answer goes into `precision.json` of the
run folder. `--resume` reads it again, and `polycentre run --precision-of` starts a run with that of another.
"""

from __future__ import annotations

from collections.abc import Mapping

from reports.run_record import RunRecord


def settle_precision(record: RunRecord, measured: Mapping[str, Mapping[str, str]], setting: str) -> None:
    """Write into the record in which precision each centre computes each model.

    What the record holds already stands, unless the scenario sets the precision itself.

    Args:
        measured: {centre: {model: precision}}, as the survey answered.
        setting: `compute.precision` of the scenario.
    """
    recorded, auto = record.precision(), setting == "auto"
    settled = dict(recorded)
    for centre, found in measured.items():
        known = recorded.get(centre, {})
        settled[centre] = {**found, **known} if auto else {**known, **found}
        new = sorted(set(found) - set(known))
        if auto and recorded and new:
            text = f"precision.json lacked {', '.join(new)} of centre {centre!r}; measured anew"
            record.event("note", centre=centre, text=text)
    record.write_precision(settled)
