# The server on a CPU, with the bundled model:
#   docker build -t sdcore . && docker run --rm -e SDCORE_API_KEY=... -p 127.0.0.1:7860:7860 sdcore
FROM python:3.12-slim

WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/app/constraints.txt
COPY constraints.txt ./
# Its build without CUDA, in the version that was tested.
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)+cpu"
COPY pyproject.toml README.md LICENSE ./
COPY sdcore sdcore
COPY weights weights
RUN pip install ".[server]" && useradd --no-create-home sdcore

USER sdcore
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health')"]
# In compose Prometheus asks by the name `sdcore`.
ENTRYPOINT ["sdcore", "serve", "--host", "0.0.0.0", "--host-allowed", "sdcore"]
