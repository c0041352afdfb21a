"""Of every shipped scenario: the jobs that it asks for, what is predicted, and the page that a hospital reads."""

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from clients.centre_file import CentreFile
from federation.wire.job import canonical_json
from polycentre.centre_plan import plan_page
from scenarios.messages import expected_messages
from scenarios.plan import Plan
from scenarios.reader import read, shipped

# Scenarios whose file paths must be given with --set.
DATA = "/data"


@pytest.fixture
def plan_of(monkeypatch):
    monkeypatch.setenv("POLYCENTRE_TEST_DATA", DATA)
    for name in ("INBREAST", "BCDR", "OPTIMAM", "CBIS_DDSM"):
        monkeypatch.delenv(name, raising=False)
    return lambda name: Plan(read(name), files=False)


CHECKOUT = str(Path(__file__).resolve().parents[2])


def anywhere(value):
    """A JSON value in which this checkout is nowhere in particular."""
    return json.loads(canonical_json(value).replace(CHECKOUT, "<checkout>"))


def sha(value):
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_jobs_and_messages(name, plan_of, golden):
    plan = plan_of(name)
    groups = defaultdict(list)
    free = {}
    for ask in plan.asks():
        group = f"{ask.strategy or 'all'}: {ask.kind.name}"
        groups[group].append((ask.centre, anywhere(ask.json)))
        free.setdefault(group, sorted(ask.free))
    jobs = {
        group: {
            "distinct": len({(centre, canonical_json(body)) for centre, body in found}),
            "free": free[group],
            "digest": sha(sorted({(centre, canonical_json(body)) for centre, body in found})),
            "first": min(found, key=lambda one: (one[0], canonical_json(one[1]))),
        }
        for group, found in groups.items()
    }
    # What a package makes is known from its files, which are not at hand.
    packages = any(generator.package for generator in plan.scenario.generators.values())
    rows = [] if packages else [vars(row) for row in expected_messages(plan)]
    kinds = {}
    for row in rows:
        total = kinds.setdefault(row["kind"], {"messages": 0, "bytes_down": 0, "bytes_up": 0, "steps": 0})
        for key in total:
            total[key] = None if row[key] is None or total[key] is None else total[key] + row[key]
    expected = {"total": kinds, "digest": sha(sorted(canonical_json(row) for row in rows))}
    golden(f"{name}.json", {"jobs": jobs, "expected": expected})


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_page_of_a_hospital(name, plan_of, golden, centre_file, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "polycentre.centre_plan.own_digest", lambda checkout: "0" * 64
    )  # Flower packs the whole checkout
    plan = plan_of(name)
    if any(generator.package for generator in plan.scenario.generators.values()):
        pytest.skip("its package is not at hand")
    first = {
        role: next((c for c, own in plan.scenario.centres.items() if role in own.roles), None)
        for role in ("provider", "receiver")
    }
    for centre in dict.fromkeys(c for c in first.values() if c is not None):
        # With the scenario's own data, and the minimums that a hospital has by default.
        settings = {"approve": {"studies": "any"}, "data": None, "minimums": None}
        file = CentreFile.read(centre_file(tmp_path / centre, centre, **settings))
        text = plan_page(file, plan.scenario, "approve")
        text = re.sub(r"`[0-9a-f]{16,64}`", "`<digest>`", text)
        golden(f"{name}.{centre}.md", text)
