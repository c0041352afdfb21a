"""Live progress of a run, read from its record: phase, what each centre works on, how far it is, and when the phase will be done."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reports.run_record import RunRecord

_PLAIN_EVERY_S = 15.0


class Progress:
    """A live display in a terminal; a line now and then elsewhere (logs, CI).

    Args:
        expected: units of work that the plan foresees.
        skip: events of earlier sessions, which are not shown again.
        at_once: how many jobs are done at once; those sent after them wait. None: every centre works by itself.
    """

    def __init__(self, console: Console, record: RunRecord, expected: int, skip: int, at_once: int | None = None):
        self._console, self._record, self._expected, self._at_once = console, record, max(1, expected), at_once
        self._skip = skip
        self._began = time.time()
        self._live = (
            Live(Text("starting..."), console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._printed = 0.0
        self._last_line = ""

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh(final=True)
        if self._live:
            self._live.stop()

    def refresh(self, final: bool = False) -> None:
        """Show the state of the record."""
        state = _State(self._record.events()[self._skip :])
        headline = self._headline(state)
        if self._live:
            self._live.update(Group(Text(headline, style="bold"), *(Text(line) for line in self._running(state))))
        elif headline != self._last_line and (final or time.time() - self._printed > _PLAIN_EVERY_S):
            self._printed, self._last_line = time.time(), headline
            self._console.print(headline, highlight=False, soft_wrap=True)

    def _headline(self, state: _State) -> str:
        spent = _duration(time.time() - self._began)
        if not state.phase:
            return f"starting: {spent}"
        done = state.done + state.failed
        failed = f", {state.failed} failed" if state.failed else ""
        line = f"{state.phase}: {state.phase_done} of {state.phase_units} ({done} of {self._expected} units in all{failed}), {spent}"
        left = self._seconds_left(state)
        return line + (f", this phase about {_duration(left)} more" if left > 0 else "")

    def _seconds_left(self, state: _State) -> float:
        """Estimate for the phase: the running jobs from their own progress, the queued ones at the mean of the finished."""
        running = 0.0
        begun = state.begun(self._at_once)
        for unit in begun:
            share, spent = self._share(unit), time.time() - unit["t"]
            running += spent * (1 - share) / share if share > 0.02 else 0.0
        queued = max(0, state.phase_units - state.phase_done - len(begun))
        mean = state.phase_seconds / state.phase_computed if state.phase_computed else 0.0
        return (running + queued * mean) / max(1, len(begun))

    def _running(self, state: _State) -> list[str]:
        lines = []
        for unit in state.begun(self._at_once):
            line = f"  {unit['centre']:<16} {unit['label'] or unit['kind']}"
            report = self._report(unit)
            lines.append(line + (f"  {report['done']}/{report['total']}" if report else ""))
        return lines

    def _share(self, unit: dict[str, Any]) -> float:
        report = self._report(unit)
        return min(1.0, report["done"] / max(1, report["total"])) if report else 0.0

    def _report(self, unit: dict[str, Any]) -> dict[str, Any] | None:
        """A centre's report on a running unit; in simulation its workspace is part of the run folder."""
        file = self._record.folder / "centres" / unit["centre"] / "progress" / f"{unit['unit']}.json"
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError):
            return None


class _State:
    def __init__(self, events: list[dict[str, Any]]):
        self.phase = ""
        self.done = self.failed = self.phase_done = self.phase_units = 0
        self.phase_computed, self.phase_seconds = 0, 0.0
        self.running: dict[str, dict[str, Any]] = {}
        finished: set[str] = set()
        for event in events:
            kind = event["event"]
            if kind == "phase_started":
                self.phase, self.phase_units, self.phase_done = event["phase"], event["units"], 0
                self.phase_computed, self.phase_seconds = 0, 0.0
            elif kind == "unit_started":
                self.running[event["unit"]] = event
            elif kind == "unit_finished":
                self.running.pop(event["unit"], None)
                if event["unit"] in finished:
                    continue  # two arms asked for it
                finished.add(event["unit"])
                self.done += 1
                self.phase_done += 1
                if not event["cached"]:
                    self.phase_computed += 1
                    self.phase_seconds += event["seconds"]
            elif kind == "unit_failed":
                self.running.pop(event["unit"], None)
                self.failed += 1
                self.phase_done += 1

    def begun(self, at_once: int | None) -> list[dict[str, Any]]:
        """Of the jobs under way the first ones, which workers are doing."""
        return list(self.running.values())[:at_once]


def _duration(seconds: float) -> str:
    seconds = max(0, int(seconds))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{seconds % 60:02d}"
