"""How a Ray cluster is divided into workers, and what is reported of one that is not fit. Real clusters: tests/server."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.flower import ray_cluster
from federation.flower.ray_cluster import (
    RayCluster,
    RayNode,
    WorkerShare,
    find_ray_cluster,
    worker_share,
    workers_that_fit,
)
from federation.wire.code_digest import ALL, code_digest
from federation.wire.errors import StudyError


def nodes(*sizes):
    return [RayNode(f"n{i}", *size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "workers", "threads", "gpu", "expected"),
    [
        ([(1,), (1,)], 2, 1, None, WorkerShare(1)),
        ([(8,), (8,)], 2, 1, None, WorkerShare(8)),  # one worker a node, not both on the first
        ([(8,), (8,)], 3, 1, None, WorkerShare(4)),
        ([(8,), (2,)], 5, 2, None, WorkerShare(2)),
        ([(8, 1)], 2, 1, 0, WorkerShare(4, 0.5)),
        ([(8, 4)], 4, 1, 0, WorkerShare(2, 1.0)),  # a GPU each, not four on the first
        ([(8, 2)], 3, 1, 0, WorkerShare(2, 0.5)),
        ([(8, 1), (8, 1)], 6, 1, 0, WorkerShare(2, 0.3333)),
        ([(8, 1)], 2, 1, 0.25, WorkerShare(4, 0.25)),
        ([(64,), (8, 2)], 2, 1, 0, WorkerShare(4, 1.0)),  # nodes without a GPU play no part
    ],
)
def test_the_largest_share_that_fits(sizes, workers, threads, gpu, expected):
    share = worker_share(nodes(*sizes), workers, threads, gpu)
    assert share == expected
    assert workers_that_fit(nodes(*sizes), share) >= workers


@pytest.mark.parametrize(
    ("sizes", "workers", "threads", "gpu", "expected"),
    [
        ([(1,), (1,)], 3, 1, None, "compute.workers is 3 with 1 thread each, but the Ray cluster has room for 2 (2 nodes with 1 CPU)"),
        ([(3,), (3,)], 3, 2, None, "has room for 2 (2 nodes with 3 CPUs); set compute.workers=2"),  # 6 CPUs, no node with 4
        ([(8, 1), (8,)], 3, 1, 0.5, "room for 2 that share its GPUs (1 node with 8 CPUs and 1 GPU, 1 node with 8 CPUs; each takes 0.5"),
        ([(2, 1), (8,)], 3, 1, 0, "room for 2 that share its GPUs"),
    ],
)  # fmt: skip
def test_more_workers_than_there_is_room_for(sizes, workers, threads, gpu, expected):
    with pytest.raises(StudyError) as problem:
        worker_share(nodes(*sizes), workers, threads, gpu)
    assert expected in str(problem.value) and "\n" not in str(problem.value) and problem.value.exit_status == 2


some_nodes = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=5)


@given(some_nodes, st.integers(1, 20), st.integers(1, 4), st.sampled_from([None, 0, 0.2, 0.5, 1.0]))
def test_a_share_fits_and_no_larger_one_does(sizes, workers, threads, gpu):
    cluster = nodes(*sizes)
    try:
        share = worker_share(cluster, workers, threads, gpu)
    except StudyError:
        # No share fits: not the smallest there could be.
        smallest = 0.0 if gpu is None else gpu or 1 / (2 * workers)
        assert workers_that_fit(cluster, WorkerShare(threads, smallest)) < workers
        return
    assert workers_that_fit(cluster, share) >= workers and share.cpus >= threads
    assert workers_that_fit(cluster, WorkerShare(share.cpus + 1, share.gpus)) < workers
    assert (share.gpus == 0) is (gpu is None) and (not gpu or share.gpus == gpu)
    # Flower counts with the same division, in floats.
    assert share.gpus == 0 or int(1 / share.gpus) * share.gpus <= 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head:10001", "give auto, or HOST:PORT"),
        ("head", "give auto, or HOST:PORT"),
        ("127.0.0.1:1", "nothing answers there"),
    ],
)
def test_what_is_not_the_address_of_a_cluster(address, expected, tmp_path):
    with pytest.raises(StudyError) as problem:
        find_ray_cluster(address, [tmp_path])
    assert str(problem.value).startswith(f"--ray {address}: ") and expected in str(problem.value)
    assert problem.value.exit_status == 2


def test_an_address_that_takes_calls_and_never_answers(tmp_path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(StudyError) as problem:
            find_ray_cluster(f"127.0.0.1:{deaf.getsockname()[1]}", [tmp_path], answer_s=2.0)
    assert "the cluster did not answer within 2 s" in str(problem.value), "Ray itself would retry for minutes"
    assert list(tmp_path.iterdir()) == [], "what was written to try the folder is removed"


# -- what the nodes say ----------------------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch):
    """Function: let the probe find a cluster of two fit nodes, changed by a function of what it found."""

    def change(how):
        def probe(address, tokens, answer_s):
            found = {"address": "10.0.0.1:6379", "free_cpus": 6.0, "nodes": [
                {"id": name, "name": name, "cpus": cpus, "gpus": gpus, "digest": code_digest(ALL), "folder": "/opt/polycentre",
                 "places": dict.fromkeys(tokens, True)}
                for name, cpus, gpus in (("alpha", 4.0, 1.0), ("beta", 2.0, 0.0))
            ]}  # fmt: skip
            for place, token in tokens.items():
                for name in ("alpha", "beta"):
                    ray_cluster.Path(place, name).write_text(token[::-1])
            return how(found, list(tokens)) or found

        monkeypatch.setattr(ray_cluster, "_probe", probe)

    return change


def test_a_cluster_that_is_fit(probed, tmp_path):
    probed(lambda found, places: None)
    cluster = find_ray_cluster("auto", [tmp_path / "runs", tmp_path / "cache" / "patches"])
    assert cluster == RayCluster("10.0.0.1:6379", (RayNode("alpha", 4.0, 1.0), RayNode("beta", 2.0)))
    assert (cluster.cpus, cluster.gpus) == (6, 1)
    assert list(tmp_path.iterdir()) == []


def only_on_the_node(found, places):
    """Beta wrote a file that this machine does not see: the same path on another disk."""
    ray_cluster.Path(places[0], "beta").unlink()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda found, places: {"error": "Version mismatch: Ray: 2.50.0"}, "--ray auto: Version mismatch: Ray: 2.50.0"),
        (lambda found, places: found.update(nodes=[]), "no node of the cluster offers a CPU"),
        (lambda found, places: found.update(free_cpus=5.0), "5 of the cluster's 6 CPUs are free"),
        (lambda found, places: found["nodes"][1].update(error="has no polycentre in its Python"), "node beta has no polycentre"),
        (lambda found, places: found["nodes"][1].update(digest="0" * 16), "node beta runs other code (/opt/polycentre, digest 0000"),
        (lambda found, places: found["nodes"][0]["places"].update({places[0]: False}), "node alpha does not share the folder"),
        (only_on_the_node, "node beta does not share the folder"),
    ],
)  # fmt: skip
def test_the_first_thing_in_the_way_is_named(how, expected, probed, tmp_path):
    probed(how)
    with pytest.raises(StudyError) as problem:
        find_ray_cluster("auto", [tmp_path])
    assert expected in str(problem.value) and "\n" not in str(problem.value) and problem.value.exit_status == 2
    assert "does not share" not in expected or f"the folder {tmp_path} with" in str(problem.value)
