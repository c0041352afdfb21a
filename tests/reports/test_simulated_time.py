"""The virtual clock's record: shares worked out by hand, who was affected most, and charts of one job and of thousands."""

from __future__ import annotations

import base64
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.kinds import Kinds
from reports.record_files import VIRTUAL_TIME
from reports.sections.simulated_time.figure import JOBS_IN_A_LANE
from reports.sections.simulated_time.jobs import centre_times, covered_share, most_affected, simulations
from reports.sections.simulated_time.section import simulated_section
from reports.study import read_study

STUDY = read_study("""
centres: {B: {}, A: {}}
arms: {async: {strategy: dm_gan, updates: 60}, average: {strategy: fedavg_gan, rounds: 20}}
""")
KINDS = Kinds(strategies={"dm_gan": {"title": "a generator on the server"}})


def job(centre="A", sent=0.0, started=None, finished=None, outcome="used", **changes):
    row = {"arm": "async", "task": "lesion", "strategy": "dm_gan", "centre": centre, "number": 0, "kind": "gan_gradient",
           "sent_s": sent, "started_s": started, "finished_s": finished, "outcome": outcome, "staleness": None}  # fmt: skip
    return row | changes


def table(*rows):
    made = pd.DataFrame(list(rows), columns=list(VIRTUAL_TIME.columns))
    return made.astype({name: float for name in ("sent_s", "started_s", "finished_s", "staleness")})


JOBS = table(
    job("A", 10, 12, 20, staleness=1),
    job("A", 20, 21, 30, "late"),
    job("A", 30, 31, 35, staleness=2),
    job("B", 10, 15, 50, "stale", staleness=9),
    job("B", 50, None, None, "outage"),
    job("B", 60, 60, None, "lost"),
    job("B", 70, 70, 90, "refused"),
)


def test_seconds_shares_and_outcomes():
    (simulation,) = simulations(JOBS, STUDY)
    assert (simulation.start, simulation.seconds, len(simulation.jobs)) == (10, 80, 7)
    b, a = centre_times(simulation, list(STUDY.centres))
    assert (a.centre, b.centre) == ("A", "B")
    # A computed 12-20, 21-30 (too late, but it worked) and 31-35 of 80 seconds; B 15-50, and nobody knows the lost job.
    assert a.computing_s == 21 and a.share == pytest.approx(21 / 80) and b.share == pytest.approx(35 / 80)
    assert dict(a.outcomes) == {"used": 2, "late": 1} and b.outcomes["used"] == 0 and b.unused == 4 == b.jobs
    assert a.median_s == 8 and b.median_s == 35
    assert a.staleness == 1.5 and math.isnan(b.staleness)


def test_arms_in_the_scenario_s_order_each_on_its_own_clock():
    found = simulations(
        table(job(arm="average", sent=5, started=5, finished=6), job(arm="zzz"), job(sent=1, started=1, finished=9)),
        STUDY,
    )
    assert [(s.arm, s.seconds) for s in found] == [("async", 8), ("average", 1), ("zzz", 0)]
    assert math.isnan(centre_times(found[2])[0].share)
    assert simulations(table(), STUDY) == []


def test_the_most_affected_come_first_and_stay_in_order():
    rows = []
    for centre, unused, seconds in (("a", 0, 9), ("b", 2, 1), ("c", 1, 1), ("d", 0, 20), ("e", 0, 5)):
        rows += [job(centre, 0, 0, seconds), *(job(centre, 1, outcome="lost") for _ in range(unused))]
    times = centre_times(simulations(table(*rows), STUDY)[0])
    assert [t.centre for t in most_affected(times, 3)] == ["b", "c", "d"]
    assert [t.centre for t in most_affected(times, 4)] == ["a", "b", "c", "d"]
    assert most_affected(times, 9) == times


# -- bins ----------------------------------------------------------------------------------------------------------


def test_covered_share_by_hand():
    share = covered_share([(1.0, 3.0), (2.0, 2.5), (3.5, 4.0), (7.0, 9.0)], np.array([0.0, 2.0, 4.0, 6.0, 8.0]))
    np.testing.assert_allclose(share, [0.5, 0.75, 0.0, 0.5])
    np.testing.assert_array_equal(covered_share([], np.array([0.0, 1.0, 2.0])), [0, 0])


spans = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 15)).map(lambda x: (float(x[0]), float(sum(x)))), max_size=20
)


@given(spans, st.integers(1, 7))
def test_bins_cover_what_seconds_cover(found, width):
    edges = np.arange(0, 64 + width, width, dtype=float)
    covered = np.zeros(int(edges[-1]))
    for start, end in found:
        covered[int(start) : int(end)] = 1
    np.testing.assert_allclose(covered_share(found, edges), covered.reshape(-1, width).mean(axis=1), atol=1e-12)


# -- the section ---------------------------------------------------------------------------------------------------

FEDERATION = {
    "arm": "async", "task": "lesion", "strategy": "dm_gan", "rounds_or_updates": 2, "jobs": 7, "used": 2, "lost": 1,
    "late": 1, "stale": 1, "gone": [{"centre": "B", "from_s": 60.0}], "state_lost": [{"centre": "A", "number": 0}],
    "transport": None, "notes": [], "failed": "",
}  # fmt: skip


def svg(picture) -> str:
    return base64.b64decode(picture.uri.split(",", 1)[1]).decode()


def test_summary_and_centres():
    made = simulated_section(JOBS, [FEDERATION], {("async", "lesion"): "async: trouble"}, STUDY, KINDS)
    assert made is not None
    summary = dict(zip(made["summary"]["header"], made["summary"]["rows"][0], strict=True))
    assert summary["Strategy"] == "a generator on the server"
    assert summary["Simulated time"] == "1 min 20 s" and summary["Steps"] == "2 updates"
    assert summary["per simulated second"] == "0.025" and summary["Computing"] == "26 % / 35 % / 44 %"
    assert [summary[o] for o in ("Jobs", "used", "stale", "late", "lost", "outage", "refused")] == list("7211111")
    (part,) = made["parts"]
    assert part["title"] == "async" and part["trouble"] == "async: trouble" and part["left_out"] == ""
    b = dict(zip(part["table"]["header"], part["table"]["rows"][0], strict=True))
    assert b == {
        "Centre": "B", "Computing": "44 %", "Seconds a job (median)": "35 s", "Jobs": "4", "used": "0", "stale": "1",
        "late": "0", "lost": "1", "outage": "1", "refused": "1", "Mean staleness": "–",
    }  # fmt: skip
    assert "B computed 44 % of the time, 0 jobs used, 1 lost, 1 outage, 1 refused, 1 stale" in part["picture"].alt
    for word in (
        "computed and used",
        "computed, not used",
        "gone",
        "lost",
        "late",
        "stale",
        "outage",
        "refused",
        "empty state",
    ):
        assert f"<!-- {word}" in svg(part["picture"]), word


def test_without_its_entry_nothing_is_said_of_rounds():
    made = simulated_section(JOBS, [], {}, STUDY, KINDS)
    assert made is not None
    summary = dict(zip(made["summary"]["header"], made["summary"]["rows"][0], strict=True))
    assert summary["Steps"] == "–" and summary["per simulated second"] == "–"
    assert "gone" not in svg(made["parts"][0]["picture"])


def test_none_and_one_job_that_took_no_time():
    assert simulated_section(table(), [], {}, STUDY, KINDS) is None
    made = simulated_section(table(job(sent=3.0, outcome="outage")), [FEDERATION | {"gone": []}], {}, STUDY, KINDS)
    assert made is not None
    assert made["summary"]["rows"][0][3:6] == ["2 updates", "–", "–"]
    assert made["parts"][0]["table"]["rows"] == [["A", "–", "–", "1", "1"]]


def test_thousands_of_jobs_make_no_large_picture():
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 5000, (10, 200)), axis=1)
    outcomes = rng.choice(["used", "lost", "late", "stale", "outage"], (10, 200), p=[0.6, 0.1, 0.1, 0.1, 0.1])
    rows = [
        job(f"c{c}", starts[c, i], starts[c, i], starts[c, i] + 5, str(outcomes[c, i]))
        for c in range(10)
        for i in range(200)
    ]
    made = simulated_section(table(*rows), [], {}, STUDY, KINDS)
    assert made is not None and len(made["parts"][0]["table"]["rows"]) == 10
    picture = svg(made["parts"][0]["picture"])
    assert "height: share of the time" in picture and len(picture) < 1_000_000
    few = simulated_section(table(*rows[:JOBS_IN_A_LANE]), [], {}, STUDY, KINDS)
    assert few is not None and "height: share" not in svg(few["parts"][0]["picture"])


def test_of_many_centres_the_most_affected_are_shown():
    rows = [job(f"c{c:04d}", 10 * i, 10 * i, 10 * i + 5) for c in range(1000) for i in range(2)]
    rows += [job(f"c{c:04d}", 30, outcome="lost") for c in range(500, 510)]
    rows += [job(f"c{c:04d}", 40, 40, 40 + c) for c in range(900, 1000)]
    made = simulated_section(table(*rows), [], {}, STUDY, KINDS)
    assert made is not None
    (part,) = made["parts"]
    names = [row[0] for row in part["table"]["rows"]]
    # Those that lost a job, then the slowest by their median job: all have 5 s in two of three.
    assert names[:10] == [f"c{c:04d}" for c in (*range(10),)] and names[10:20] == [f"c{c:04d}" for c in range(500, 510)]
    assert names[20:] == ["all: smallest", "all: median", "all: largest"]
    assert "20 of 1\N{NARROW NO-BREAK SPACE}000 centres" in part["left_out"]
    assert "20 of 1000 centres" in part["picture"].alt
    assert part["table"]["rows"][-1][part["table"]["header"].index("lost")] == "1"
    assert len(svg(part["picture"])) < 300_000


def test_the_same_rows_give_the_same_picture():
    first = simulated_section(JOBS, [FEDERATION], {}, STUDY, KINDS)
    again = simulated_section(JOBS.sample(frac=1, random_state=1), [FEDERATION], {}, STUDY, KINDS)
    assert first is not None and again is not None
    assert first["parts"][0]["picture"] == again["parts"][0]["picture"] and first["summary"] == again["summary"]
