# The environment alone; the workflow, its data and its results stay in the folder that is mounted:
#   docker build --tag stiffness .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" stiffness --cores 8
FROM python:3.11.13-slim-bookworm

# Says in results/*/provenance.yaml which revision ran.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

# An index of torch's CPU builds makes the image several times smaller, for a machine without a GPU.
ARG EXTRA_INDEX=""
COPY envs/requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check \
        ${EXTRA_INDEX:+--extra-index-url "$EXTRA_INDEX"} --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# Whoever runs it, there is a home to write caches to.
RUN useradd --create-home --uid 1000 stiffness && chmod 0777 /home/stiffness
ENV HOME=/home/stiffness
USER stiffness
WORKDIR /work
ENTRYPOINT ["snakemake"]
