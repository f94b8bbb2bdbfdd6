# CPU image. Written, but not built or run by the tests.
#   docker build -t epi2expr .
#   docker run --rm -v "$PWD:/work" epi2expr study mine.toml
FROM python:3.11-slim
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt /src && rm -r /src
WORKDIR /work
ENTRYPOINT ["epi2expr"]
