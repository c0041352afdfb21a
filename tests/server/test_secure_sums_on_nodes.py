"""Secure sums over a real SuperLink and four real SuperNodes, one of which is killed in each phase of the protocol.

Meanwhile the memory of the coordinator's processes, its database and its run folder are searched for what single centres gave;
where the answers carry no masks, the same search finds it.
"""

import contextlib
import json
import time

import psutil
import pytest
import yaml
from real_nodes import ended, kill_node, wait_until

from basics.plugins import CENTRE_FILE_VARIABLE
from clients.approval import Approvals
from federation.flower.processes import MARK, carrying
from federation.secure_sum.fixed_point import to_ring
from scenarios.reader import resolved_yaml

ROUNDS = 4
FOUR = (
    "centres.D={roles: [provider], data: {source: phantom, patients: 24, scanner: film}}",
    "arms={average: {strategy: fedavg_gan, model: dcgan, width: 4, batch_size: 4, local_steps: 2, ema: 0.9, "
    f"rounds: {ROUNDS}, fidelity: {{images: 16, every: {ROUNDS}, fewest_patients: 2}}}}}}",
    "centres.A.roles=[receiver, provider]",
)

pytestmark = [pytest.mark.runtime, pytest.mark.slow]  # a SuperLink and four nodes of four processes each: minutes


@pytest.fixture(scope="module")
def scenario(federated):
    return lambda *more: federated(*FOUR, *more)


@pytest.fixture(scope="module")
def simulated(scenario, conduct_in_process, tmp_path_factory):
    """(results.csv, what the centres gave in each round: parts of the weights and of the elements of the ring that are masked)."""
    weights_found, ring_found = [], []

    def part(arrays):
        """Bytes of the middle of the largest array, whose values are not all alike."""
        largest = max(arrays.values(), key=lambda array: array.size).reshape(-1)
        return largest[largest.size // 2 :][:16].tobytes()

    def listening(weights, examples, members):
        made = to_ring(weights, examples, members)
        weights_found.append(part(weights))
        ring_found.append(part(made))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strategies.sums.to_ring", listening)
        done, record = conduct_in_process(scenario(), tmp_path_factory.mktemp("simulated") / "run")
    assert done and len(set(weights_found)) == len(set(ring_found)) == 4 * ROUNDS
    return (record.folder / "results.csv").read_bytes(), weights_found, ring_found


def of_a_hospital(scenario, **release):
    """Change of a trial: every centre lists its studies and has approved this one."""

    def change(folder, address):
        for name in scenario.centres:
            file = folder / "centres" / name / "centre.yaml"
            tree = yaml.safe_load(file.read_text())
            tree |= {"approve": {"bundles": "own", "studies": "listed"}, "release": tree["release"] | release}
            tree["data"] = {"source": "phantom", "patients": 24, "scanner": scenario.centres[name].data.scanner}
            file.write_text(yaml.safe_dump(tree))
            Approvals(type(folder)(tree["workspace"])).add(resolved_yaml(scenario))

    return change


# -- the search ----------------------------------------------------------------------------------------------------


class Search:
    """What of some bytes the coordinator ever held: in the memory of its processes, its database, its run folder.

    Args:
        running: the deployment.
        wanted: parts of what single centres gave.
    """

    def __init__(self, running, record, wanted):
        self._home, self._record, self._wanted = running.place.root_certificate.parents[2], record, wanted
        self.in_memory, self.on_disk, self.scans, self.bytes = set(), set(), 0, 0

    def coordinator(self):
        """Its processes: all of the deployment's without those of nodes."""
        for process in carrying(MARK, str(self._home)):
            with contextlib.suppress(psutil.Error):
                if CENTRE_FILE_VARIABLE not in process.environ() and "centre" not in process.cmdline():
                    yield process

    def look(self):
        for process in self.coordinator():
            with contextlib.suppress(OSError, psutil.Error):
                self._memory_of(process.pid)
        files = [*self._home.rglob("superlink.db*"), *(f for f in self._record.folder.rglob("*") if f.is_file())]
        for file in files:
            with contextlib.suppress(OSError):
                self.on_disk |= self._found(file.read_bytes())
        self.scans += 1

    def _memory_of(self, pid):
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                (
                    span,
                    mode,
                    *_,
                ) = line.split()
                if "rw" not in mode or "[v" in line:
                    continue
                start, end = (int(number, 16) for number in span.split("-"))
                with contextlib.suppress(OSError, ValueError):
                    memory.seek(start)
                    held = memory.read(end - start)
                    self.bytes += len(held)
                    self.in_memory |= self._found(held)

    def _found(self, held):
        return {part for part in self._wanted if part in held}


# -- tests ---------------------------------------------------------------------------------------------------------


def sent(record, centre, kind, number):
    """Whether a centre was sent a job of a round."""
    return any(
        e["event"] == "unit_started"
        and (e["centre"], e["kind"]) == (centre, kind)
        and f"round {number + 1}" in e["label"]
        for e in record.events()
    )


def shared(record, centre, number):
    """Whether a centre has written down what it shares of its secrets."""
    for file in (record.folder.parent / centre / "work").rglob(f"sums/*/{number}-*.json"):
        with contextlib.suppress(OSError, json.JSONDecodeError):
            if "list" in json.loads(file.read_text()):
                return True
    return False


def test_one_of_four_is_killed_in_each_phase_and_the_coordinator_holds_no_single_update(
    deployment, scenario, simulated
):
    expected, weights, ring = simulated
    wanted = scenario()
    running, operator, record = deployment(wanted, 90.0, of_a_hospital(wanted, plain_updates=False))
    search = Search(running, record, [*weights, *ring])

    def kill_when(reached, what):
        wait_until(lambda: ended(record) or reached(), None, what, 500.0)
        assert not ended(record), record.events()[-1]
        kill_node(running, "D")
        search.look()
        running.start_node("D")

    kill_when(lambda: sent(record, "D", "sum_keys", 0), "D was asked for its keys")
    kill_when(
        lambda: shared(record, "D", 0), "D shared its secrets"
    )  # half sent: Flower waits three minutes for the rest
    for number, step in enumerate(("train_summed_round", "sum_survivors", "sum_opening")):
        kill_when(lambda: sent(record, "D", step, number), f"D was sent {step}")  # noqa: B023
    wait_until(lambda: ended(record), None, "the run ended", 600.0)
    search.look()
    assert record.events()[-1]["status"] == "completed", record.events()[-1]
    assert (record.folder / "results.csv").read_bytes() == expected
    assert search.scans == 6 and search.bytes > 1e8
    assert not search.in_memory and not search.on_disk


@pytest.fixture
def plain_updates(scenario, conduct_in_process, tmp_path):
    """(scenario without masks, part of what each centre gives in each round)."""
    found = []

    def listen(message):
        if message.has_content() and message.metadata.reply_to_message_id:
            envelope = json.loads(str(message.content.config_records["envelope"]["json"]))
            if envelope["kind"] == "train_round":
                largest = max((one.data for one in message.content.array_records["arrays"].values()), key=len)
                found.append(largest[len(largest) // 2 :][:64])

    wanted = scenario("arms.average.secure_aggregation=false")
    done, _ = conduct_in_process(wanted, tmp_path / "simulated", on_message=listen)
    assert done and len(set(found)) == 4 * ROUNDS
    return wanted, set(found)


def test_the_same_search_finds_each_update_where_masks_are_left_out(deployment, plain_updates):
    wanted, updates = plain_updates
    running, operator, record = deployment(wanted, 90.0, of_a_hospital(wanted, plain_updates=True))
    search = Search(running, record, updates)
    while not ended(record):
        search.look()
        time.sleep(1.0)
    assert record.events()[-1]["status"] == "completed", record.events()[-1]
    assert search.in_memory and search.in_memory | search.on_disk == updates
