# syntax=docker/dockerfile:1
# RichSem in a container, on a CPU or on NVIDIA GPUs:
#
#   docker build --tag richsem .                                  CPU
#   docker build --tag richsem --build-arg DEVICE=cuda .          GPU; then docker run --gpus all ...
#   docker run --rm --user "$(id -u)" --volume "$PWD/runs:/richsem/runs" richsem bash scripts/quickstart.sh
#   docker run --rm richsem python tools/predict.py --help
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG DEVICE=cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /richsem
# Packages before sources: they change less often.
COPY requirements.txt constraints.txt ./
COPY scripts/setup.sh scripts/
# PyTorch for CPUs comes without 3 GB of CUDA libraries. Both variables are uv's.
RUN if [ "$DEVICE" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi; UV_NO_CACHE=1 bash scripts/setup.sh
COPY . .
# The compiler for GPUs comes from PyPI and leaves with this step; of its parts, pip would choose newer ones than fit together.
# hadolint ignore=DL3003
RUN if [ "$DEVICE" = cuda ]; then \
        export CUDA_HOME=/cuda/nvidia/cu13 RICHSEM_OPS=required && \
        .venv/bin/uv pip install --no-cache --target /cuda --constraints constraints.txt \
            "cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]" "nvidia-cuda-crt==13.0.*" "nvidia-nvvm==13.0.*" && \
        ln -s lib "$CUDA_HOME/lib64" && ln -s libcudart.so.13 "$CUDA_HOME/lib/libcudart.so"; \
    fi && \
    (cd models/dino/ops && ../../../.venv/bin/python setup.py build install) && \
    rm -rf models/dino/ops/build /cuda && \
    mkdir -m 777 runs

FROM python:${PYTHON}-slim-bookworm
# Any user may run it: caches go to a home that all can write to.
RUN useradd --create-home --uid 1000 richsem && chmod 777 /home/richsem
COPY --from=build /richsem /richsem
WORKDIR /richsem
ENV PATH=/richsem/.venv/bin:$PATH \
    HOME=/home/richsem \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
CMD ["python", "main.py", "--help"]
