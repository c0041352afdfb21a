# One image for the SuperLink, the hospitals' nodes, and the operator; what a container is, its command says.
#
#   docker build -t polycentre .                                                           CPU
#   docker build -t polycentre --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 --build-arg CPU_ONLY=0 .
#
# No secret, no data and no setting of a site is in it. `docker save polycentre | gzip > polycentre.tar.gz` carries it to a
# hospital without internet.
FROM python:3.11-slim

# Where torch's wheels come from, beside the package index. With CPU_ONLY=1 a build that brought CUDA along fails.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG CPU_ONLY=1

RUN groupadd --gid 1000 polycentre \
    && useradd --uid 1000 --gid polycentre --create-home --shell /usr/sbin/nologin polycentre \
    # A new named volume takes over owner and mode of the folder that it is mounted on.
    && mkdir -p /opt/polycentre /var/lib/polycentre /var/lib/polycentre-anchor /etc/polycentre /data \
    && chown polycentre:polycentre /var/lib/polycentre /var/lib/polycentre-anchor /etc/polycentre \
    && chmod 700 /var/lib/polycentre /var/lib/polycentre-anchor

WORKDIR /opt/polycentre
COPY constraints.txt pyproject.toml ./
# The packages have to be there, if only by name, for pip to install the project; their code comes later, so that changing it
# does not install torch again.
RUN python -m venv /opt/venv \
    # Only these two are looked for there; what they need comes with the rest.
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt --no-deps --extra-index-url "$TORCH_INDEX" \
       torch torchvision \
    && for package in polycentre server clients strategies federation scenarios models data_partitions metrics reports basics; do \
           mkdir $package && touch $package/__init__.py; done \
    && touch LICENSE README.md \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -e '.[dicom-codecs,spreadsheets]' \
    && { [ "$CPU_ONLY" != 1 ] || ! /opt/venv/bin/pip list 2>/dev/null | grep -i '^nvidia-'; } \
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
