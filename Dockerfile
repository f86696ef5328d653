# The image of a Ray cluster's pods on Kubernetes, and of MLflow's server:
#
#   docker build --tag REGISTRY/xlt-ray:0.1 .
#
# PyTorch's default build for Linux brings CUDA; the nodes need NVIDIA's driver only.
FROM python:3.12-slim

# KubeRay's probes call wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget=1.* \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/xlt-ray
# The packages first: a change of the code leaves this layer, which is gigabytes, as it is.
COPY constraints.txt ./
RUN torch="$(grep '^torch==' constraints.txt)" \
    && pip install --no-cache-dir --constraint constraints.txt "$torch" boto3
COPY pyproject.toml README.md LICENSE launch.py ./
COPY search_spaces search_spaces
COPY xlt_ray xlt_ray
RUN pip install --no-cache-dir --constraint constraints.txt '.[demo,wordnet]'

RUN useradd --create-home --uid 1000 ray && install --directory --owner ray /home/ray/work
USER 1000
# Searches write runs/ and their state here; kuberay/cluster.yaml mounts a volume on it.
WORKDIR /home/ray/work
