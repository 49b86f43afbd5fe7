# The binary alone: static, as an ordinary user, in an empty image.
#
#   docker build -t pilotlight .
#   docker run --rm -p 8080:8080 -v "$PWD/examples/hello:/config:ro" pilotlight

FROM rust:1.95-bookworm AS build
WORKDIR /src
RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
COPY . .
# A target given by name keeps the static flag away from build scripts.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --locked --release --target "$target" --bin pilotlight \
 && install -D -m 0755 "target/$target/release/pilotlight" /out/pilotlight \
 && objcopy --strip-debug /out/pilotlight \
 && install -d -m 1777 /out/tmp

FROM scratch
COPY --from=build /out/ /
USER 65532:65532
ENV TMPDIR=/tmp
# Gateways are reached from outside the container; admin and mesh stay on its loopback.
ENV PILOTLIGHT_BIND=0.0.0.0
EXPOSE 8080
ENTRYPOINT ["/pilotlight"]
CMD ["run", "/config"]
