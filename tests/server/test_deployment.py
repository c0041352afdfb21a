"""A study over nodes that are each one centre: first in this process, then over a real SuperLink and real SuperNodes."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from real_nodes import ended, kill_node, new_record, wait_until

from clients.app import app as client_app
from federation.flower.in_process import FIRST_NODE, InProcessGrid
from federation.flower.processes import MARK, carrying
from reports.run_record import RunRecord
from scenarios.reader import resolved_yaml
from server.app import begin, conduct

CHECKOUT = Path(__file__).resolve().parents[2]
# As few messages one after the other as still show every kind of job except the pooled ones: each is a new process.
SMALL = ["repeats=1", "arms={real: {strategy: local}, b_gan: {strategy: one_shot, generators: [b_gan]}}", "study.test_on=[C]"]  # fmt: skip


@pytest.fixture(scope="module")
def small(tiny):
    """Function: the small scenario, with "key=value" overrides."""
    return lambda *overrides: tiny(*SMALL, "generators.c_flow=null", *overrides)


@pytest.fixture(scope="module")
def reference(small, conduct_in_process, tmp_path_factory):
    """results.csv of the same scenario in a simulation."""
    done, record = conduct_in_process(small(), tmp_path_factory.mktemp("reference") / "run")
    assert done
    return (record.folder / "results.csv").read_bytes()


def nodes_below(folder, centres):
    """Configurations of nodes, each with folders of its own."""
    return [{"centre": c, "workspace": str(folder / c / "work"), "cache": str(folder / c / "cache")} for c in centres]


def texts(record, event):
    return [e["text"] for e in record.events() if e["event"] == event]


# -- in this process -----------------------------------------------------------------------------------------------


def conduct_over(configs, scenario, folder, **options):
    """Run a scenario over deployed nodes in this process; returns (succeeded, record)."""
    record = new_record(scenario, folder / "run")
    begin(record)
    grid = InProcessGrid(
        client_app, len(configs), {}, node_configs={FIRST_NODE + i: c for i, c in enumerate(configs)}, **options
    )
    return conduct(grid, record, folder / "not-used", node_wait_s=0.3), record


def test_every_centre_works_in_its_own_folders_only_and_the_results_are_those_of_a_simulation(
    small, reference, tmp_path
):
    """With a fourth node, of a centre that the scenario does not have: it is noted and gets no work."""
    messages = []
    done, record = conduct_over(
        nodes_below(tmp_path, "CAZB"),
        small(),
        tmp_path,
        on_message=lambda message: messages.append(repr(message.content)),
    )
    assert done, texts(record, "run_finished")
    assert (record.folder / "results.csv").read_bytes() == reference
    assert {p.name for p in tmp_path.iterdir()} == {"A", "B", "C", "Z", "run"}
    assert not (record.folder / "centres").exists()
    held = [[p.name for p in (tmp_path / centre / "cache" / "patches").iterdir() if p.is_dir()] for centre in "ABC"]
    assert [len(names) for names in held] == [1, 1, 1] and len(set(map(tuple, held))) == 3, "each its own patches"
    assert all((tmp_path / centre / "work" / "secret").exists() for centre in "ABC")
    assert (tmp_path / "A" / "work" / "pools").is_dir() and not (tmp_path / "B" / "work" / "pools").exists()
    assert messages and not any(str(tmp_path) in text for text in messages), "neither side learns the other's folders"
    assert "node 103 is centre 'Z', which this scenario does not have" in texts(record, "note")
    assert {path.name for path in (tmp_path / "Z" / "work").iterdir()} == {"ledger.jsonl", "own_bundle.json"}


@pytest.mark.parametrize(
    ("centres", "expected", "status"),
    [
        ("AB", "no node of C came within 0 s (online: A, B)", 1),
        ("ABX", "node 103 is centre 'X', which this scenario does not have", 1),
        ("ABCB", "both say that they are centre 'B'", 2),
    ],
)
def test_nodes_that_do_not_fit_the_scenario_end_the_run_in_one_line(centres, expected, status, small, tmp_path):
    done, record = conduct_over(nodes_below(tmp_path, centres), small(), tmp_path)
    end = record.events()[-1]
    assert not done and (end["event"], end["status"], end["exit_status"]) == ("run_finished", "failed", status)
    assert expected in end["text"] and "\n" not in end["text"]


def test_a_simulation_over_deployed_nodes_does_not_confuse_them(small, tmp_path):
    """The operator forgot deployed=true: node 1 is centre B, and is asked for A's work."""
    record = new_record(small(), tmp_path / "run")
    begin(record)
    configs = dict(zip((101, 102, 103), nodes_below(tmp_path, "BAC"), strict=True))
    assert not conduct(InProcessGrid(client_app, 3, {}, node_configs=configs), record, tmp_path / "cache")
    text = record.events()[-1]["text"]
    assert "centre 'A' was addressed at the node of another centre" in text and "deployed=true" in text
    assert "centre 'C'" not in text


def test_deployed_nodes_over_which_real_patches_should_move(tiny, tmp_path):
    done, record = conduct_over(nodes_below(tmp_path, "ABC"), tiny(), tmp_path)
    end = record.events()[-1]
    assert not done and end["exit_status"] == 2
    assert end["text"].startswith("arms.pooled: pooled moves real patches, which a deployed centre refuses; remove it")
    assert not (tmp_path / "A").exists(), "refused before any node was asked"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 600 KiB at B's workspace: enough for its patches' record, too small for a generator and its progress."""
    place = tmp_path / "B" / "work"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_node_whose_disk_is_full_says_so_and_the_run_goes_on_when_there_is_space(
    small, reference, small_disk, tmp_path
):
    filler = small_disk / "other-files"
    record = new_record(small(), tmp_path / "run")

    def go_on():
        begin(record)
        grid = InProcessGrid(
            client_app, 3, {}, node_configs={FIRST_NODE + i: c for i, c in enumerate(nodes_below(tmp_path, "ABC"))}
        )
        return conduct(grid, record, tmp_path / "not-used", node_wait_s=0.3)

    with contextlib.suppress(OSError), open(filler, "wb") as out:
        while True:
            out.write(bytes(4096))
            out.flush()
    assert not go_on()
    (text,) = {e["text"] for e in record.events() if e["event"] == "run_finished"}
    assert "no node of B came" in text and "cannot write to its workspace; free space there" in text, text
    filler.unlink()
    assert go_on(), texts(record, "run_finished")
    assert (record.folder / "results.csv").read_bytes() == reference


# -- real processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tiny):
    """The small scenario with two centres: every node takes four processes."""
    return tiny(*SMALL, "generators.c_flow=null", "centres.C=null", "study.test_on=[A]")


@pytest.fixture
def scenario_file(pair, tmp_path):
    (tmp_path / "pair.yaml").write_text(resolved_yaml(pair))
    return tmp_path / "pair.yaml"


@pytest.fixture
def start(scenario_file, tmp_path):
    """Function: start `polycentre run --deployment loopback`; whatever it leaves is ended afterwards."""
    started = []

    def run(*arguments):
        command = [sys.executable, "-m", "polycentre", "run", str(scenario_file), "--deployment", "loopback",
                   "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), *arguments]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"POLYCENTRE_TEST": str(tmp_path)},
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
    for process in carrying("POLYCENTRE_TEST", str(tmp_path)):
        process.kill()


def told_of(processes, what):
    """What each process says of itself; one that has ended meanwhile says nothing."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append(what(process))
    return found


def commands(processes):
    return told_of(processes, lambda process: " ".join(process.cmdline()))


def homes_of(processes):
    return {home for home in told_of(processes, lambda process: process.environ().get(MARK)) if home}


def started_units(folder):
    events = RunRecord.open(folder).events() if (folder / "scenario.yaml").exists() else []
    return [e for e in events if e["event"] == "unit_started"]


@pytest.mark.runtime
@pytest.mark.slow  # a dozen processes, two minutes of a processor
def test_real_nodes_give_the_bytes_of_a_simulation_and_leave_nothing_behind(start, pair, conduct_in_process, tmp_path):
    done, simulated = conduct_in_process(pair, tmp_path / "reference")
    assert done
    process = start()
    wait_until(lambda: started_units(tmp_path / "run"), process, "a unit was started")
    alive = carrying("POLYCENTRE_TEST", str(tmp_path))
    homes = {home for home in homes_of(alive) if not home.startswith(str(tmp_path))}  # a node's is in its workspace
    assert len(homes) == 1 and sum("clients.flower_supernode" in command for command in commands(alive)) == 2, commands(
        alive
    )
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert (tmp_path / "run" / "results.csv").read_bytes() == (simulated.folder / "results.csv").read_bytes()
    assert "report.html" in out and (tmp_path / "run" / "report.html").exists()
    assert carrying("POLYCENTRE_TEST", str(tmp_path)) == [] and not any(Path(home).exists() for home in homes)
    workers = {
        e["centre"]: e["worker"] for e in RunRecord.open(tmp_path / "run").events() if e["event"] == "unit_finished"
    }
    assert {centre: worker.split("/")[0] for centre, worker in workers.items()} == {"A": "A", "B": "B"}
    assert {p.name for p in (tmp_path / "cache" / "centres").iterdir()} == {"A", "B"}


@pytest.mark.runtime
@pytest.mark.slow
def test_sigkill_of_the_command_line_ends_every_process(start, tmp_path):
    def family():
        return carrying("POLYCENTRE_TEST", str(tmp_path))

    process = start()
    # Two nodes of four processes, the SuperLink, the operator's SuperExec and the ServerApp.
    events = tmp_path / "run" / "events.jsonl"
    wait_until(lambda: events.exists() and '"unit_started"' in events.read_text(), process, "a node was at work")
    homes = {home for home in homes_of(family()) if not home.startswith(str(tmp_path))}
    assert len(family()) >= 10 and len(homes) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not family(), None, "every process had ended", 60.0)
    shutil.rmtree(homes.pop(), ignore_errors=True)  # nobody is left to do it


# -- a node is killed ----------------------------------------------------------------------------------------------


def training_at_b(record):
    """Whether B's process reports that it is training."""
    assert not ended(record), record.events()[-1]
    folder = record.folder.parent / "B" / "work" / "progress"
    return any("b_gan" in file.read_text() for file in folder.glob("*.json"))


@pytest.fixture(scope="module")
def long_reference(small, conduct_in_process, tmp_path_factory):
    """(scenario whose generator trains long enough to be killed, its results.csv from a simulation)."""
    scenario = small("generators.b_gan.steps=1000")
    done, record = conduct_in_process(scenario, tmp_path_factory.mktemp("long") / "run")
    assert done
    return scenario, (record.folder / "results.csv").read_bytes()


@pytest.mark.runtime
@pytest.mark.slow
def test_a_node_killed_while_it_trains_and_started_again(deployment, long_reference):
    scenario, expected = long_reference
    running, operator, record = deployment(scenario, 60.0)
    wait_until(lambda: training_at_b(record), None, "B was training")
    kill_node(running, "B")
    running.start_node("B")
    wait_until(lambda: ended(record), None, "the run ended", 400.0)
    assert record.events()[-1]["status"] == "completed", record.events()[-1]
    assert "its node is back" in texts(record, "note")
    assert [e["centre"] for e in record.events() if e["event"] == "unit_retried"] == ["B"]
    assert (record.folder / "results.csv").read_bytes() == expected


@pytest.mark.runtime
@pytest.mark.slow
def test_the_superlink_is_killed_and_nothing_is_lost(deployment, long_reference, tmp_path):
    """One that is away for longer is part of the trial in containers."""
    scenario, expected = long_reference
    running, operator, record = deployment(scenario, 60.0)
    wait_until(lambda: training_at_b(record), None, "B was training")
    before = {e["unit"] for e in record.events() if e["event"] == "unit_finished"}
    running.link.kill()
    time.sleep(3)
    running.start_link()
    wait_until(lambda: ended(record), None, "the run ended", 400.0)
    # One that is soon back is not missed; otherwise the ServerApp gives up, and the run is resumed.
    if record.events()[-1]["status"] == "failed":
        # The nodes were never touched: they come back by themselves, and nothing of the first session is under way there.
        wait_until(lambda: not running.offline(), None, "all nodes were back", 120.0)
        begin(record)
        operator.submit(
            {"out": str(record.folder), "cache": str(tmp_path), "begun": True, "deployed": True, "node_wait_s": 60.0}
        )
        wait_until(lambda: ended(record), None, "the resumed run ended", 400.0)
    assert record.events()[-1]["status"] == "completed", record.events()[-1]
    assert (record.folder / "results.csv").read_bytes() == expected
    done = [
        e["unit"]
        for e in record.events()
        if e["event"] == "unit_finished" and not e["cached"] and e["kind"] != "survey_data"
    ]
    assert len(done) == len(set(done)) and before, "what was finished is not done again"


@pytest.mark.runtime
@pytest.mark.slow
def test_a_node_killed_for_good_fails_what_needs_it_and_the_run_can_be_resumed(deployment, long_reference, tmp_path):
    scenario, expected = long_reference
    running, operator, record = deployment(scenario, 10.0)
    wait_until(lambda: training_at_b(record), None, "B was training")
    kill_node(running, "B")
    wait_until(lambda: ended(record), None, "the run ended", 400.0)
    operator.stop()
    end = record.events()[-1]
    assert (end["status"], end["exit_status"]) == ("failed", 1)
    (failed,) = [e for e in record.events() if e["event"] == "unit_failed"]
    assert (failed["centre"], failed["code"]) == ("B", "node_unavailable")
    assert "resume the run when its node is back" in failed["text"]
    finished = {e["unit"] for e in record.events() if e["event"] == "unit_finished" and e["kind"] != "survey_data"}
    assert len(finished) == 2, "the arm that does not need B is learned at A and tested at C"

    begin(record)  # over the same folders; in this process, which is quicker
    configs = {FIRST_NODE + i: c for i, c in enumerate(nodes_below(tmp_path, "ABC"))}
    assert conduct(InProcessGrid(client_app, 3, {}, node_configs=configs), record, tmp_path, node_wait_s=1.0)
    assert (record.folder / "results.csv").read_bytes() == expected
    cached = {e["unit"] for e in record.events() if e["event"] == "unit_finished" and e["cached"]}
    assert cached == finished, "what was finished is not done again"


# -- a bad line ----------------------------------------------------------------------------------------------------


class BadLine:
    """A way to a port of this machine that delays, is narrow, and can be cut.

    delay_s: one way. bytes_per_s: each way, of all connections together.
    """

    def __init__(self, to_port, delay_s, bytes_per_s):
        self._to, self._delay_s, self._bytes_per_s = to_port, delay_s, bytes_per_s
        self._open = set()
        self._lock = threading.Lock()
        self._free_at = [0.0, 0.0]  # when each way can take more
        self._cut = False
        self.carried = [0, 0]  # bytes, there and back
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Break what is under way, and let nothing through until `heal`."""
        with self._lock:
            self._cut = True
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def heal(self):
        self._cut = False

    def close(self):
        self._server.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._server.accept()
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._open |= {near, far}
                for way, (source, target) in enumerate([(near, far), (far, near)]):
                    threading.Thread(target=self._carry, args=(way, source, target), daemon=True).start()

    def _carry(self, way, source, target):
        with contextlib.suppress(OSError):
            while part := source.recv(16384):
                with self._lock:
                    now = time.monotonic()
                    self._free_at[way] = max(now, self._free_at[way]) + len(part) / self._bytes_per_s
                    self.carried[way] += len(part)
                    wait_s = self._free_at[way] - now
                time.sleep(wait_s + self._delay_s)
                target.sendall(part)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.runtime
@pytest.mark.slow
def test_a_slow_line_that_is_cut_and_heals_only_takes_longer(deployment, long_reference):
    """A quarter of a second each way and 2 Mbit/s at B, and nothing at all for 20 s while B trains."""
    scenario, expected = long_reference
    lines = []

    def through_a_bad_line(folder, address):
        lines.append(BadLine(int(address.rpartition(":")[2]), 0.25, 250_000))
        file = folder / "centres" / "B" / "centre.yaml"
        text = file.read_text()
        assert address in text
        file.write_text(text.replace(address, f"127.0.0.1:{lines[0].port}"))

    running, operator, record = deployment(scenario, 120.0, through_a_bad_line)
    (line,) = lines
    try:
        wait_until(lambda: training_at_b(record), None, "B was training", 300.0)
        line.cut()
        time.sleep(20)
        line.heal()
        wait_until(lambda: ended(record), None, "the run ended", 600.0)
        assert record.events()[-1]["status"] == "completed", record.events()[-1]
        assert (record.folder / "results.csv").read_bytes() == expected
        assert sum(line.carried) > 100_000, "B is reached this way only"
    finally:
        line.close()
