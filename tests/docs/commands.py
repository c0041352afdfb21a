"""Commands that the documents show, and for each how it is tried: the table of test_commands.py.

What a table says instead of the documented command is the substitution: a scenario of seconds for one of minutes, this
folder's `site/centres/B/centre.yaml` for a hospital's file.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cli:
    """Called in this process, in the workshop (see conftest.py), as the command line calls it."""

    command: str
    says: str = ""
    status: int = 0


@dataclass(frozen=True)
class ToTheNodes(Cli):
    """Called in this process up to the moment at which the study would be handed to nodes or a Ray cluster."""

    by: str = field(default="", kw_only=True)  # the test that runs such a command to its end


@dataclass(frozen=True)
class Shell:
    """Run by bash in the workshop."""

    command: str
    leaves: str = ""  # a file that is there afterwards


@dataclass(frozen=True)
class By:
    """Run by another test, which is named as file::test."""

    test: str


@dataclass(frozen=True)
class NotRun:
    """Not run by any test, for a reason."""

    reason: str


B = "site/centres/B/centre.yaml"
FAST = "--engine inprocess"
DEPLOYMENT = "server/test_deployment.py::test_real_nodes_give_the_bytes_of_a_simulation_and_leave_nothing_behind"
CLUSTER = "server/test_runtime.py::test_a_ray_cluster_of_two_nodes_gives_the_same_bytes_and_stays"
LOCAL = "docs/test_commands.py::test_a_deployment_that_is_kept"
FLWR = "server/test_runtime.py::test_flwr_run_completes_on_flowers_default_of_two_nodes"
DOCKER = "deploy/test_docker.py::test_a_study_over_three_nodes_gives_the_generators_of_a_simulation"

ROOT = NotRun("changes the machine as root; tests/deploy/test_units.py reads the units that it installs")
INSTALLS = NotRun("installs packages from the network; `make install` does so for the machine that runs this test")
HOSPITALS_DOCKER = NotRun("needs a Docker engine and a hospital's settings; tests/deploy/test_units.py reads the file")
IMAGE = NotRun("needs a Docker engine and the image; tests/deploy/test_docker.py builds it")
GPU = NotRun("needs a Docker engine with GPUs; tests/deploy/test_units.py reads the file")
NETWORK = NotRun("needs the SuperLink's machine at superlink.example.org")
SYSTEMD = NotRun("needs a machine on which systemd runs the service")
HANDED_OVER = NotRun("needs the files that an operator hands to a hospital")

COMMANDS: dict[str, Cli | Shell | By | NotRun] = {
    # -- a study ----------------------------------------------------------------------------------------------------------
    "polycentre scenarios": Cli("polycentre scenarios", says="many_centres"),
    "polycentre validate FILE": Cli("polycentre validate study.yaml", says="run it with: polycentre run study.yaml"),
    "polycentre validate study.yaml": Cli("polycentre validate study.yaml", says="what centres approve"),
    "polycentre data FILE [--out FOLDER]": Cli("polycentre data study.yaml --out looked-at", says="looked-at/data.html"),
    "polycentre run FILE [--set study.synthetic=600]... [--out FOLDER] [--resume] "
    "[--engine ray|inprocess | --ray ADDRESS | --deployment NAME]": Cli(
        f"polycentre run study.yaml --set seed=1 --out runs/study-1 --resume {FAST}", says="report.html"
    ),
    "polycentre report RUN [RUN...]": Cli("polycentre report runs/study-1 runs/study-1", says="report.html"),
    "polycentre doctor [--deployment NAME]": Cli("polycentre doctor", says="nothing is missing"),
    "polycentre run docs/example-plugin/study.yaml": By(
        "docs/test_example_plugin.py::test_its_model_classifier_source_metric_and_strategy_run"
    ),
    "pip install ./docs/example-plugin": By(
        "docs/test_example_plugin.py::test_its_model_classifier_source_metric_and_strategy_run"
    ),
    # -- make: `test_every_target_exists` expands each of them ----------------------------------------------------------------
    "make demo": NotRun("five minutes and an environment of its own; it runs `polycentre run demo`, see scenarios/test_shipped.py"),
    "make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu": NotRun("as `make demo`, from another source of packages"),
    "make install": INSTALLS,
    "make test": NotRun("it is what runs this test"),
    "make test-all": NotRun("it runs all the tests"),
    "make lint": NotRun("run beside the tests by .ci/run"),
    "make locks": NotRun("resolves all packages over the network; tests/deploy/test_locks.py compares what it made"),
    "make locks CPU_WHEELS='--find-links FOLDER'": NotRun("as `make locks`, from another source of packages"),
    "make sbom": NotRun("run before the tests by .ci/run; tests/deploy/test_locks.py makes one itself"),
    "make audit": NotRun("asks PyPI; run by .ci/run"),
    "make bench": NotRun("measures for minutes; bench/results holds what it measured"),
    ".venv/bin/pre-commit install": NotRun("changes the developer's own .git"),
    # -- real nodes -------------------------------------------------------------------------------------------------------
    "polycentre run demo --set arms.b_real=null --deployment loopback": ToTheNodes(
        "polycentre run demo --set arms.b_real=null --deployment loopback --out runs/loopback", by=DEPLOYMENT
    ),
    "polycentre deploy local demo": By(LOCAL),
    "polycentre run demo --set arms.b_real=null --deployment local": ToTheNodes(
        "polycentre run demo --set arms.b_real=null --deployment local --out runs/local", by=LOCAL
    ),
    "docker compose up --build -d": By(DOCKER),
    "polycentre run demo --set arms.b_real=null --deployment hospitals": ToTheNodes(
        "polycentre run demo --set arms.b_real=null --deployment hospitals --out runs/hospitals", by=DOCKER
    ),
    "polycentre run study.yaml --deployment hospitals --out runs/study-1": ToTheNodes(
        "polycentre run study.yaml --deployment hospitals --out runs/study-2", by=DOCKER
    ),
    "polycentre run study.yaml --deployment hospitals --out runs/study-1 --resume": ToTheNodes(
        "polycentre run study.yaml --deployment hospitals --out runs/study-1 --resume", by=DOCKER
    ),
    "polycentre run FILE --ray auto": ToTheNodes("polycentre run study.yaml --ray auto --out runs/auto", by=CLUSTER),
    "polycentre run FILE --ray 10.0.0.1:6379": ToTheNodes("polycentre run study.yaml --ray 10.0.0.1:6379 --out runs/ray", by=CLUSTER),
    "polycentre run FILE --ray ADDRESS --out FOLDER --resume": ToTheNodes(
        "polycentre run study.yaml --ray 10.0.0.1:6379 --out runs/study-1 --resume", by=CLUSTER
    ),
    "ray start --head --port 6379 --num-cpus 16 --disable-usage-stats": By(CLUSTER),
    "ray start --address 10.0.0.1:6379 --num-cpus 16 --disable-usage-stats": By(CLUSTER),
    "ray status": NotRun("needs a Ray cluster; a command of Ray's own"),
    "ray stop": NotRun("would stop every Ray of this machine, whoever started it"),
    "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1": By(FLWR),
    "flwr run": By(FLWR),
    "flwr run .": By(FLWR),
    "flwr run . --stream --run-config 'scenario=\"/path/to/scenario.yaml\"'": By(FLWR),
    'flwr run . --stream --federation-config "num-supernodes=4 client-resources-num-cpus=1"': NotRun(
        "a second simulation of minutes; its options are Flower's own"
    ),
    # -- a hospital's node --------------------------------------------------------------------------------------------------
    "polycentre centre plan centre.yaml SCENARIO": Cli(f"polycentre centre plan {B} study.yaml", says="Field by field"),
    "polycentre centre plan CENTRE.yaml SCENARIO": Cli(f"polycentre centre plan {B} demo", says="Field by field"),
    "polycentre centre plan centre.yaml study.yaml": Cli(f"polycentre centre plan {B} study.yaml", says="What would leave"),
    "polycentre centre approve centre.yaml SCENARIO": Cli(f"polycentre centre approve {B} study.yaml", says="approved"),
    "polycentre centre approve CENTRE.yaml SCENARIO": Cli(f"polycentre centre approve {B} many_centres", says="no centre", status=2),
    "polycentre centre approve centre.yaml study.yaml": Cli(f"polycentre centre approve {B} study.yaml", says="approved"),
    "polycentre centre plugins CENTRE.yaml": Cli(f"polycentre centre plugins {B}", says="no plug-in is installed"),
    "polycentre centre approved CENTRE.yaml": Cli(f"polycentre centre approved {B}", says="study"),
    "polycentre centre approved centre.yaml": Cli(f"polycentre centre approved {B}", says="study"),
    "polycentre centre revoke CENTRE.yaml HASH": By("polycentre/test_centre.py::test_approving_and_revoking"),
    "polycentre centre revoke centre.yaml HASH": By("polycentre/test_centre.py::test_approving_and_revoking"),
    "polycentre centre check CENTRE.yaml": By("polycentre/test_centre.py::test_a_node_that_is_ready"),
    "polycentre centre check centre.yaml": By("polycentre/test_centre.py::test_a_node_that_is_ready"),
    "sudo -u polycentre /opt/polycentre/.venv/bin/polycentre centre check /etc/polycentre/centre.yaml": By(
        "polycentre/test_centre.py::test_a_node_that_is_ready"
    ),
    "polycentre centre run CENTRE.yaml": By(DEPLOYMENT),
    "polycentre centre run centre.yaml": By(DEPLOYMENT),
    "polycentre centre pause CENTRE.yaml": Cli(f"polycentre centre pause {B}", says="paused"),
    "polycentre centre pause centre.yaml": Cli(f"polycentre centre pause {B}", says="paused"),
    "polycentre centre resume CENTRE.yaml": Cli(f"polycentre centre resume {B}", says="does jobs again"),
    "polycentre centre resume centre.yaml": Cli(f"polycentre centre resume {B}", says="does jobs again"),
    "polycentre centre log CENTRE.yaml": Cli(f"polycentre centre log {B}", says="0 lines"),
    "polycentre centre log centre.yaml": Cli(f"polycentre centre log {B}", says="0 lines"),
    "polycentre centre log verify CENTRE.yaml": Cli(f"polycentre centre log verify {B}", says="0 lines"),
    "polycentre centre log verify centre.yaml": Cli(f"polycentre centre log verify {B}", says="0 lines"),
    "polycentre centre acknowledge CENTRE.yaml": Cli(f"polycentre centre acknowledge {B}", says="nothing to acknowledge"),
    "polycentre centre acknowledge centre.yaml": Cli(f"polycentre centre acknowledge {B}", says="nothing to acknowledge"),
    # -- the operator -------------------------------------------------------------------------------------------------------
    "polycentre deploy init site --centre A --centre B --host superlink.example.org --host 127.0.0.1": Cli(
        "polycentre deploy init site --centre A --centre B --host superlink.example.org --host 127.0.0.1", says="for A, B"
    ),
    "polycentre deploy init site ...": By("polycentre/test_deploy.py::test_a_new_name_renews_the_certificate_and_nothing_else"),
    'polycentre deploy register hospitals "$PWD/public-keys/B.pub"': By(LOCAL),
    'polycentre deploy register hospitals "$PWD"/public-keys/*.pub': By(LOCAL),
    "polycentre deploy nodes hospitals": By(LOCAL),
    "polycentre doctor --deployment hospitals": By(LOCAL),
    "polycentre deploy revoke hospitals NUMBER": By(LOCAL),
    "umask 077; openssl rand -hex 32 > operator.secret": Shell(
        "umask 077; openssl rand -hex 32 > operator.secret", leaves="operator.secret"
    ),
    "mkdir -p deployments/hospitals && cp ca.crt operator.secret deployments/hospitals/": Shell(
        "mkdir -p made/hospitals && cp site/operator/ca.crt site/operator/operator.secret made/hospitals/",
        leaves="made/hospitals/operator.secret",
    ),
    "printf '%s\\n' 'address: 127.0.0.1:8001' 'root_certificate: ca.crt' 'operator_secret: operator.secret' "
    "> deployments/hospitals/deployment.yaml": Shell(
        "mkdir -p written; printf '%s\\n' 'address: 127.0.0.1:8001' 'root_certificate: ca.crt' 'operator_secret: operator.secret' "
        "> written/deployment.yaml && diff written/deployment.yaml site/operator/deployment.yaml"
    ),
    "docker build -t polycentre . && docker save polycentre:latest | gzip > polycentre.tar.gz": IMAGE,
    "git archive --prefix=polycentre/ -o polycentre-source.tar.gz HEAD": NotRun("packs the last commit, not what is tested"),
    "sha256sum polycentre.tar.gz polycentre-source.tar.gz ca.crt": HANDED_OVER,
    # Inline in the guides.
    "docker compose -f docker-compose.yml -f deploy/docker-compose.gpu.yml up --build -d": GPU,
    # -- installing a node, with Docker and without -------------------------------------------------------------------------------
    "docker load < polycentre.tar.gz": IMAGE,
    "mkdir -p settings workspace anchor && chmod 700 workspace anchor": Shell(
        "mkdir -p settings workspace anchor && chmod 700 workspace anchor", leaves="anchor"
    ),
    "cp ca.crt settings/": HANDED_OVER,
    "ssh-keygen -q -t ecdsa -b 384 -N '' -C '' -f settings/centre.key": Shell(
        "mkdir -p keys && ssh-keygen -q -t ecdsa -b 384 -N '' -C '' -f keys/centre.key", leaves="keys/centre.key.pub"
    ),
    "$EDITOR settings/centre.yaml": NotRun("opens an editor; tests/deploy/test_guides.py compares the keys of the file"),
    "sudo chown -R 1000:1000 settings workspace anchor": ROOT,
    "export POLYCENTRE_DATA=/path/of/the/images": HOSPITALS_DOCKER,
    "docker compose -f hospital-compose.yml run --rm node centre check /etc/polycentre/centre.yaml": HOSPITALS_DOCKER,
    "docker compose -f hospital-compose.yml run --rm node centre ...": HOSPITALS_DOCKER,
    "docker compose -f hospital-compose.yml up -d": HOSPITALS_DOCKER,
    "docker compose -f hospital-compose.yml stop": HOSPITALS_DOCKER,
    "docker compose -f hospital-compose.yml logs -f": HOSPITALS_DOCKER,
    "useradd --system --home-dir /var/lib/polycentre --shell /usr/sbin/nologin polycentre": ROOT,
    "useradd --system --home-dir /var/lib/polycentre-superlink --shell /usr/sbin/nologin polycentre-superlink": ROOT,
    "tar -xzf polycentre-source.tar.gz -C /opt": ROOT,
    "cd /opt/polycentre": ROOT,
    "python3 -m venv .venv": INSTALLS,
    '.venv/bin/pip install --require-hashes --only-binary :all: --extra-index-url "$TORCH_INDEX" -r requirements-node-cpu.lock': INSTALLS,
    ".venv/bin/pip install --require-hashes --only-binary :all: -r requirements.lock": INSTALLS,
    ".venv/bin/pip install --no-deps --no-build-isolation -e .": INSTALLS,
    ".venv/bin/python -m compileall -q basics clients data_partitions federation metrics models polycentre reports scenarios "
    "server strategies": NotRun("writes into the checkout; tests/deploy/test_guides.py compares its list of packages"),
    'pip download -d wheelhouse --require-hashes --only-binary :all: '
    '--extra-index-url "$TORCH_INDEX" -r requirements-node-cpu.lock': INSTALLS,
    ".venv/bin/pip install --no-index --find-links wheelhouse --require-hashes -r requirements-node-cpu.lock": INSTALLS,
    "docker buildx imagetools inspect python:3.11-slim": NotRun("needs Docker and the registry of its images"),
    "docker build -t polycentre --build-arg BASE_IMAGE=python:3.11-slim@sha256:... .": IMAGE,
    "mkdir -m 750 /etc/polycentre && chgrp polycentre /etc/polycentre": ROOT,
    "mkdir -m 750 /etc/polycentre && cp site/superlink/* /etc/polycentre/": ROOT,
    "cp /path/of/ca.crt /path/of/centre.yaml /etc/polycentre/": ROOT,
    "ssh-keygen -q -t ecdsa -b 384 -N '' -C '' -f /etc/polycentre/centre.key": ROOT,
    "chown polycentre /etc/polycentre/centre.key": ROOT,
    "chown -R polycentre-superlink /etc/polycentre": ROOT,
    "cp deploy/systemd/polycentre-node.service /etc/systemd/system/": ROOT,
    "cp deploy/systemd/polycentre-superlink.service /etc/systemd/system/": ROOT,
    "systemctl daemon-reload": ROOT,
    "systemctl daemon-reload && systemctl enable --now polycentre-superlink": ROOT,
    "systemctl enable --now polycentre-node": ROOT,
    "journalctl -u polycentre-node -f": SYSTEMD,
    "systemctl stop polycentre-superlink": SYSTEMD,
    "systemctl start polycentre-superlink": SYSTEMD,
    "rm /var/lib/polycentre-superlink/superlink.db*": SYSTEMD,
    "cd /opt/polycentre && .venv/bin/python -m federation.flower.superlink_health superlink.example.org:8000 "
    "/etc/polycentre/ca.crt && echo it answers": NETWORK,
}  # fmt: skip
