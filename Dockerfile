# compose.yaml says the same, and docs/how-to/container.md how to add the digest: python:3.13-slim@sha256:...
ARG BASE=python:3.13-slim
FROM ${BASE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What changes seldom comes first. Everything is pinned by hash, and nothing but hyperwatch itself is built here. The file
# also names what builds it: 1 MB that nobody calls.
COPY constraints.txt ./
RUN python -m venv --without-pip /opt/hyperwatch \
    && pip --python /opt/hyperwatch install --require-hashes --only-binary :all: --requirement constraints.txt

COPY pyproject.toml README.md LICENSE ./
COPY hyperwatch ./hyperwatch
RUN pip --python /opt/hyperwatch install --no-deps --no-build-isolation .


FROM ${BASE}

LABEL org.opencontainers.image.title="hyperwatch" \
      org.opencontainers.image.description="A live, lossless WebSocket feed of a Hyperliquid node's order events" \
      org.opencontainers.image.licenses="MIT"

# 10000 is the user of the official node image, whose files are read. A new volume takes over the owner of /data and /state.
RUN groupadd --gid 10000 hyperwatch \
    && useradd --uid 10000 --gid 10000 --home-dir / --no-create-home --shell /usr/sbin/nologin hyperwatch \
    && install --directory --owner=10000 --group=10000 --mode=0755 /data /state

COPY --from=build /opt/hyperwatch /opt/hyperwatch

# Loopback would be the container's own: who may connect is decided where the ports are published.
ENV PATH=/opt/hyperwatch/bin:$PATH \
    HYPERWATCH_DATA_DIR=/data \
    HYPERWATCH_STATE_DIR=/state \
    HYPERWATCH_LISTEN=0.0.0.0:8000 \
    HYPERWATCH_METRICS_LISTEN=0.0.0.0:9464

USER 10000:10000
EXPOSE 8000 9464
STOPSIGNAL SIGTERM

# It fails for a dead loop and for lag of our own, never for a node that writes nothing. Each run starts a Python, so not often.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["hyperwatch", "healthcheck"]

ENTRYPOINT ["hyperwatch"]
CMD ["run"]
