# One image for the SuperLink and the hospitals' nodes; what a container is, its command says.
#
#   docker build -t polycentre .                                                           CPU
#   docker build -t polycentre --build-arg LOCK=requirements-node-cuda.lock .              GPU
#   docker build -t polycentre --build-arg LOCK=requirements.lock .                        and Ray, for an operator's simulations
#
# No secret, no data and no setting of a site is in it. `docker save polycentre | gzip > polycentre.tar.gz` carries it to a
# hospital without internet.

# A tag can be moved; a digest cannot. deploy/README.md says how to name one.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# What is installed: these versions, and of these only files with the hashes that are written there.
ARG LOCK=requirements-node-cpu.lock
# Where torch's CPU wheels come from, beside the package index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN groupadd --gid 1000 polycentre \
    && useradd --uid 1000 --gid polycentre --create-home --shell /usr/sbin/nologin polycentre \
    # A new named volume takes over owner and mode of the folder that it is mounted on.
    && mkdir -p /opt/polycentre /var/lib/polycentre /var/lib/polycentre-anchor /etc/polycentre /data \
    && chown polycentre:polycentre /var/lib/polycentre /var/lib/polycentre-anchor /etc/polycentre \
    && chmod 700 /var/lib/polycentre /var/lib/polycentre-anchor

WORKDIR /opt/polycentre
COPY requirements.lock requirements-node-cpu.lock requirements-node-cuda.lock pyproject.toml ./
# The packages have to be there, if only by name, for pip to install the project; their code comes later, so that changing it
# does not install torch again.
RUN python -m venv /opt/venv \
    # Two indexes may offer a name; a file that neither the lock nor its hash names is not taken from either.
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
       --extra-index-url "$TORCH_INDEX" -r "$LOCK" \
    && for package in polycentre server clients strategies federation scenarios models data_partitions metrics reports basics; do \
           mkdir $package && touch $package/__init__.py; done \
    && touch LICENSE README.md \
    # From the lock alone, setuptools included: nothing is fetched here.
    && /opt/venv/bin/pip install --no-index --disable-pip-version-check --no-deps --no-build-isolation -e . \
    && /opt/venv/bin/pip check \
    && rm -rf /root/.cache

COPY .gitignore LICENSE README.md ./
COPY polycentre polycentre
COPY server server
COPY clients clients
COPY strategies strategies
COPY federation federation
COPY scenarios scenarios
COPY models models
COPY data_partitions data_partitions
COPY metrics metrics
COPY reports reports
COPY basics basics
# Compiled once, here: a node's root file system is read-only, and each of its jobs is a new process.
RUN /opt/venv/bin/python -m compileall -q /opt/polycentre

ENV PATH=/opt/venv/bin:$PATH \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib
USER polycentre
ENTRYPOINT ["polycentre"]
CMD ["doctor"]
