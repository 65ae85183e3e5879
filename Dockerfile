# docker build --tag korser .                                  for CPUs
# docker build --tag korser:cuda --build-arg DEVICE=cuda .     for NVIDIA GPUs
# docker run --rm --volume "$PWD:/workspace" korser train mel_stl.yaml        (docs/install.md)
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . ./
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim

# Hangul in figures; with CUDA, the compiler that Triton needs for its kernels
ARG DEVICE=cpu
# hadolint ignore=DL3008
RUN case "$DEVICE" in \
        cpu) set -- ;; \
        cuda) set -- gcc libc6-dev ;; \
        *) echo "DEVICE=$DEVICE: expected cpu or cuda" >&2; exit 1 ;; \
    esac \
    && apt-get update \
    && apt-get install --yes --no-install-recommends fonts-nanum "$@" \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# PyTorch, nearly all of the image, then the other dependencies, then korser: a change of the code rebuilds the last one.
# The wheels of PyPI contain CUDA; a mirror is given as --build-arg TORCH_INDEX=URL.
ARG TORCH_INDEX
# hadolint ignore=DL3013
RUN if [ "$DEVICE" = cpu ]; then : "${TORCH_INDEX:=https://download.pytorch.org/whl/cpu}"; fi \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchaudio

ARG EXTRAS=export,vad
RUN --mount=type=bind,source=pyproject.toml,target=/tmp/pyproject.toml \
    python -c "import tomllib; project = tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in '$EXTRAS'.split(',') if name]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > /tmp/requirements.txt \
    && pip install --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl

# Data, results and cache, with checkpoints of Hugging Face and the key of signatures, are below /workspace, which any
# user (docker run --user) may write to.
RUN useradd --uid 1000 --home-dir /workspace --no-create-home korser \
    && install --directory --owner=korser --mode=777 /workspace
ENV HF_HOME=/workspace/cache/huggingface XDG_STATE_HOME=/workspace/cache/state \
    MPLCONFIGDIR=/workspace/cache/matplotlib TRITON_CACHE_DIR=/workspace/cache/triton LOGNAME=korser
USER 1000
WORKDIR /workspace
VOLUME /workspace
ENTRYPOINT ["korser"]
CMD ["--help"]
