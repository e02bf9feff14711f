# One image, many commands: worker, beat, flower, db ... It holds what runs in production and nothing else; `harbor up`,
# the demo and the bench belong to a checkout.

FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# Without a pip of its own: nothing is installed once the image is built.
RUN python -m venv --without-pip /venv

# Wheels only: a source distribution would need a compiler and run its author's code here.
COPY requirements/base.txt /tmp/base.txt
RUN pip --python /venv/bin/python install --no-deps --require-hashes --only-binary=:all: --requirement /tmp/base.txt

WORKDIR /app
COPY pyproject.toml README.md LICENSE celeryconfig.py ./
COPY cli/ cli/
COPY db/ db/
COPY migrations/ migrations/
COPY tasks/ tasks/
COPY worker/ worker/
# In place, because Alembic reads pyproject.toml and migrations/ beside the code. The modes are those of the checkout,
# and with a strict umask there the image's user could read nothing.
RUN pip --python /venv/bin/python install --no-deps --no-build-isolation --editable . \
    && pip --python /venv/bin/python uninstall --yes setuptools \
    && chmod -R a+rX /app


FROM python:3.13-slim-trixie

# A fixed number, so that a policy like Kubernetes' runAsNonRoot can check it. The user owns no file of the image.
RUN groupadd --gid 10001 harbor \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin harbor

COPY --from=build /venv /venv
COPY --from=build /app /app

ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["harbor"]
CMD ["--help"]
