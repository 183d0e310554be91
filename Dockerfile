# VERSION and COMMIT are what /version, roster_build_info and the image's labels report:
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" --build-arg COMMIT="$(git rev-parse HEAD)" -t roster .

# Cross-compiling on the builder's platform is faster than emulating the target's.
FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26.8 AS build
WORKDIR /src

# Modules change less often than code, so they have a layer of their own.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download

COPY *.go openapi.yaml ./
COPY swagger/ swagger/
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=devel
ARG COMMIT=unknown
# The build is reproducible: the binary has no paths and no build ID, and its version is an argument.
# The next image has no shell, so its empty data directory is made here.
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false \
      -ldflags "-s -w -buildid= -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/roster . && \
    mkdir /out/data

# Distroless has no version tags: nonroot is its latest build on Debian 13.
FROM gcr.io/distroless/static-debian13:nonroot
ARG VERSION=devel
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="Roster" \
      org.opencontainers.image.description="A users-and-avatars service" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT
COPY --from=build /out/roster /roster
# A new volume gets the owner of the directory that it is mounted on.
COPY --from=build --chown=65532:65532 /out/data /data
ENV DATA_DIR=/data
VOLUME /data
EXPOSE 8080 8081
# Kubernetes' runAsNonRoot requires a numeric user.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/roster", "-healthcheck"]
ENTRYPOINT ["/roster"]
