"""How CPUs and GPUs are given to the workers of a scenario, on this machine and on a Ray cluster."""

import pytest

from federation.flower.ray_cluster import RayCluster, RayNode, WorkerShare
from federation.wire.errors import StudyError
from polycentre import engines

WITHOUT_GPU = RayCluster("10.0.0.1:6379", (RayNode("alpha", 8), RayNode("beta", 8)))
WITH_GPUS = RayCluster("10.0.0.1:6379", (RayNode("alpha", 8, 2), RayNode("beta", 8, 2)))


@pytest.fixture
def gpus(monkeypatch):
    """Function: let this machine show so many GPUs."""
    return lambda count: monkeypatch.setattr(engines, "gpu_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "overrides", "expected"),
    [
        (0, [], WorkerShare(1)),
        (1, [], WorkerShare(1, 0.5)),
        (2, [], WorkerShare(1, 1.0)),
        (4, ["compute.workers=4"], WorkerShare(1, 1.0)),
        (2, ["compute.device=cpu"], WorkerShare(1)),
        (1, ["centres.A.gpu=0.2", "centres.B.gpu=0.4"], WorkerShare(1, 0.4)),
    ],
)
def test_on_this_machine(count, overrides, expected, gpus, tiny):
    gpus(count)
    assert engines.share_for(tiny(*overrides), None) == expected


def test_more_workers_than_share_the_gpus_of_this_machine(gpus, tiny):
    gpus(1)
    with pytest.raises(StudyError, match="but this machine has room for 1 that share its GPUs") as problem:
        engines.share_for(tiny("centres.A.gpu=0.6"), None)
    assert problem.value.exit_status == 2


@pytest.mark.parametrize(
    ("cluster", "overrides", "expected"),
    [
        (WITHOUT_GPU, [], WorkerShare(8)),
        (WITHOUT_GPU, ["compute.workers=4", "compute.threads_per_job=3"], WorkerShare(4)),
        (WITH_GPUS, ["compute.workers=8"], WorkerShare(2, 0.5)),
        (WITH_GPUS, ["compute.workers=8", "compute.device=cpu"], WorkerShare(2)),
    ],
)
def test_on_a_cluster_the_drivers_own_gpus_do_not_count(cluster, overrides, expected, gpus, tiny):
    for own in (0, 3):
        gpus(own)
        assert engines.share_for(tiny(*overrides), cluster) == expected


def test_a_gpu_that_no_node_of_the_cluster_has(gpus, tiny):
    gpus(1)
    with pytest.raises(StudyError, match="no node of the Ray cluster has a GPU"):
        engines.share_for(tiny("compute.device=cuda"), WITHOUT_GPU)
