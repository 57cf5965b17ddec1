# syntax=docker/dockerfile:1
# pneumo in containers (docs/deploy.md): research software, not a medical device.
#
#   docker build --target serve -t pneumo/serve .    the service: no torch, no pip, not root
#   docker build --target drift -t pneumo/drift .    the service and what a drift check takes (Evidently, pandas)
#   docker build --target train -t pneumo/train .    everything from import to promotion, with torch for CUDA
#
# A tag without a patch release on purpose: a build takes Debian's and Python's fixes. What pip installs is fixed by hash.
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.lock ./
# The one package that builds ours, of the version and with the hashes of the lock.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > build.lock \
 && python -m pip install --require-hashes --no-deps -r build.lock
COPY pyproject.toml setup.py README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY ludwig_configs ludwig_configs
COPY pneumo pneumo
COPY serving serving
COPY pipeline pipeline
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM build AS build-serve
COPY requirements-serve.lock ./
RUN python -m venv --without-pip /opt/pneumo \
 && python -m pip --python /opt/pneumo/bin/python install --require-hashes --no-deps --only-binary :all: -r requirements-serve.lock \
 && python -m pip --python /opt/pneumo/bin/python install --no-deps /wheels/*.whl

FROM build-serve AS build-drift
COPY requirements-drift.lock ./
RUN python -m pip --python /opt/pneumo/bin/python install --require-hashes --no-deps --only-binary :all: -r requirements-drift.lock

# What all images are: Python, a user without rights, and the service's settings. The root file system may be read-only
# where /tmp can be written (`docker run --read-only --tmpfs /tmp`).
FROM python:${PYTHON} AS base
RUN groupadd --gid 10001 pneumo \
 && useradd --uid 10001 --gid 10001 --no-log-init --create-home --shell /usr/sbin/nologin pneumo
ENV PATH=/opt/pneumo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DO_NOT_TRACK=1
WORKDIR /home/pneumo

# Installed where it runs: a copy from another stage would double its 6 GB while it is built.
FROM base AS train
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements-train.lock ./
RUN python -m venv --without-pip /opt/pneumo \
 && python -m pip --python /opt/pneumo/bin/python install --require-hashes --no-deps -r requirements-train.lock
COPY --from=build /wheels /wheels
RUN python -m pip --python /opt/pneumo/bin/python install --no-deps /wheels/*.whl
COPY --chown=10001:10001 ludwig_configs ludwig_configs
USER 10001:10001
CMD ["pneumo", "--help"]

FROM base AS runtime
# The prediction log of one container goes with it: PNEUMO_LOG_URL names a database that lasts.
ENV PNEUMO_HOST=0.0.0.0 \
    PNEUMO_PORT=8080 \
    PNEUMO_MODELS_DIR=/models \
    PNEUMO_KEYS=/keys/keys.yaml \
    PNEUMO_LOG_URL=sqlite:////tmp/predictions.sqlite3 \
    PNEUMO_LOG_SPOOL=/tmp/spool \
    PNEUMO_LOG_FORMAT=json
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PNEUMO_PORT'] + '/readyz', timeout=4)"]

FROM runtime AS drift
COPY --from=build-drift /opt/pneumo /opt/pneumo
USER 10001:10001
CMD ["pneumo", "serve"]

# The last one is what `docker build .` makes.
FROM runtime AS serve
COPY --from=build-serve /opt/pneumo /opt/pneumo
USER 10001:10001
CMD ["pneumo", "serve"]
