# The daemon with what it needs, and nothing that built it.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# Two environments at fixed places: one builds, the other is copied whole. Packages come by the hashes of the locks.
RUN python3 -m venv /opt/build && python3 -m venv /opt/symbiont-datad
COPY requirements-build.lock requirements.lock ./
RUN /opt/build/bin/pip install --require-hashes --requirement requirements-build.lock \
    && /opt/build/bin/pip wheel --require-hashes --no-build-isolation --wheel-dir wheels --requirement requirements.lock \
    && /opt/symbiont-datad/bin/pip install --no-index --no-deps wheels/*.whl
COPY LICENSE README.md pyproject.toml ./
COPY docs/symbiont-datad.1 docs/
COPY systemd systemd
COPY launchd launchd
COPY daemon daemon
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/symbiont-datad/bin/pip install --no-index --no-deps dist/*.whl \
    && /opt/symbiont-datad/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="symbiont-datad" \
    org.opencontainers.image.description="Keeps the Symbiont data directory: the tree, agents' state, snapshots" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# The user of the runtime's own image, so that both may write to one volume.
RUN useradd --uid 1000 --user-group --no-log-init --create-home --home-dir /var/lib/symbi --shell /usr/sbin/nologin symbi
COPY --from=build /opt/symbiont-datad /opt/symbiont-datad
ENV HOME=/var/lib/symbi PATH=/opt/symbiont-datad/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /var/lib/symbi
STOPSIGNAL SIGTERM
# Healthy is: it moves, and the tree is kept. A backup that failed makes nothing unhealthy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["symbiont-datad", "health"]
ENTRYPOINT ["symbiont-datad"]
CMD ["run"]
