# shellcheck shell=sh disable=SC2154 # of scripts/try-containers
# The Debian package: installed, upgraded, removed and purged in a container of Debian's base alone.

# Two versions: the one of this tree, and an older one that it takes the place of.
make_packages() {
    scripts/package --fast --quiet --output "$work/packages/old.deb" --deb-version 0.0.1-1 &&
        scripts/package --fast --quiet --output "$work/packages/new.deb"
}
try_package() {
    mkdir -p "$work/packages"
    if ! command -v cargo-deb >/dev/null 2>&1 && [ ! -x target/tools/cargo/bin/cargo-deb ]; then return 77; fi
    make_packages || return 1
    podman run --rm --network host --tmpfs /tmp --env DEBIAN_FRONTEND=noninteractive \
        --volume "$work/packages:/packages:ro" --volume "$PWD/tests/deployment/containers/package-inside.sh:/try:ro" \
        "$BASE" sh /try
}
