"""Files that are nearly right: a fault with a name, never a traceback, a hang or memory without bound."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzzing import READERS, mutated, survives
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW, MANY = 300, 10_000
MOVES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 60_000), st.integers(0, 40), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)
SLOWEST_MS = 10_000  # of one input, on a busy machine


def fuzz(name, examples, folder):
    reader = READERS[name]
    seeds = reader.seeds()

    @given(st.sampled_from(range(len(seeds))), MOVES)
    @settings(
        max_examples=examples,
        deadline=SLOWEST_MS,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=examples == FEW,
    )
    def run(number, moves):
        survives(reader, mutated(seeds[number], moves), folder / f"a{reader.ending}")

    run()


@pytest.mark.parametrize("name", READERS)
def test_seeds_are_read(tmp_path, name):
    for seed in READERS[name].seeds():
        path = tmp_path / f"a{READERS[name].ending}"
        path.write_bytes(seed)
        READERS[name].read(path)


@pytest.mark.parametrize("name", READERS)
def test_mutations_are_faults_or_files(tmp_path, name):
    fuzz(name, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # thousands of pydicom's, one for each tag that was mutated
@pytest.mark.parametrize("name", READERS)
def test_many_mutations_are_faults_or_files(tmp_path, name):
    fuzz(name, MANY, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("atheris") is None, reason="the fuzzer is not installed: it is part of the development install on Linux"
)
@pytest.mark.parametrize("name", READERS)
def test_a_coverage_guided_fuzzer_finds_nothing(tmp_path, name):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}"}
    done = subprocess.run(
        [sys.executable, str(here / "fuzz_with_coverage.py"), name, f"-runs={MANY}", "-max_len=20000", "-rss_limit_mb=3000", "-timeout=30"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
