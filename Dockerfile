# The control plane as an image: one static binary on an empty base, without a shell, as a user without rights.
#   docker build -t pilotfish .

FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake musl-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The C library is part of the binary, so that nothing else is needed in the image.
RUN target="$(uname -m)-unknown-linux-musl" \
    && rustup target add "$target" \
    # Build scripts read the protos of a crate that is never compiled, which only a fetch downloads.
    && cargo fetch --locked \
    && cargo build --release --locked --package pilotfish --target "$target" \
    && cp "target/$target/release/pilotfish" /pilotfish

FROM scratch
COPY --from=build /pilotfish /usr/local/bin/pilotfish
# Roots for key sets of token issuers.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 1337:1337
EXPOSE 8080 15010 15012 15014 15017
ENTRYPOINT ["/usr/local/bin/pilotfish"]
CMD ["discovery"]
