# A static binary in an otherwise empty image. It runs as user and group 999: a folder that is mounted at /var/lib/leveret
# has to be theirs (chown 999:999), a named volume is.
FROM rust:1-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
# Alpine's target is musl, and links statically.
RUN cargo build --release --locked && mkdir /empty

FROM scratch
COPY --from=build /src/target/release/leveret /leveret
COPY --from=build --chown=999:999 /empty /var/lib/leveret
USER 999:999
VOLUME /var/lib/leveret
# Inside a container, the network is the container's own; who may reach it is decided where it is published.
ENV LEVERET_DATA_DIR=/var/lib/leveret \
    LEVERET_LISTENERS_AMQP=0.0.0.0:5672 \
    LEVERET_LISTENERS_PROMETHEUS=0.0.0.0:15692
EXPOSE 5672 5671 15692
# Recovery of a large log takes a while; what fails before is not counted.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/leveret", "ping"]
ENTRYPOINT ["/leveret"]
