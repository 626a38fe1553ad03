# shellcheck shell=sh disable=SC2154 # of scripts/try-containers
# The image is as promised: no rights, no tools, ready soon, and it says what is missing.

image=localhost/understudy:$version
inside() { podman run --rm --network none --read-only --entrypoint sh "$image" -c "$1"; }
[ "$(inside 'id -u')" = 10001 ] || die "the image runs as another user"
if inside 'command -v cc || command -v gcc || command -v cargo || command -v git' >/dev/null; then
    die "there are build tools in the image"
fi
say "the image has $(podman image inspect --format '{{.Size}}' "$image" | awk '{ printf "%d MB", $1 / 1000000 }')"

# What is in it is told beside it: a crate, a package, in the versions that are there.
python3 - "target/images/understudy-$version.cdx.json" "$(podman image inspect --format '{{.Id}}' "$image")" \
    "$(inside "dpkg-query --show --showformat '\${Version}' libc6")" "$(sed -n '/^name = "tokio"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)" <<'PYTHON' || die "the SBOM is wrong"
import json, sys
file, image, libc, tokio = sys.argv[1:]
bom = json.load(open(file))
found = {(part["name"], part["version"]) for part in bom["components"]}
assert bom["bomFormat"] == "CycloneDX" and len(found) > 300, len(found)
assert ("libc6", libc) in found and ("tokio", tokio) in found, (libc, tokio)
assert any(name == "gstreamer1.0-plugins-good" for name, _ in found), "copied plugins"
assert {"name": "understudy:image", "value": image} in bom["metadata"]["properties"], "of another image"
PYTHON
say "the SBOM names its crates and packages"

# refuses WHAT TEXT ARGUMENT...: a container that is started like that ends, and says it.
refuses() {
    what=$1 text=$2
    shift 2
    if timeout 20 podman run --rm --network none --read-only --tmpfs /tmp --cap-drop all "$@" >"$work/refused.log" 2>&1; then
        die "it starts $what"
    fi
    grep -q "$text" "$work/refused.log" || die "it does not say what is wrong $what"
}
settings="--volume $PWD/infra/compose/host.toml:/etc/understudy/understudy.toml:ro"
server="--volume $PWD/infra/compose/server.toml:/etc/understudy/understudy.toml:ro --env UNDERSTUDY_SERVER__ID=recorder-1 --env UNDERSTUDY_BROKER__URL_FILE=/run/secrets/broker.url"
broker="--volume $UNDERSTUDY_SECRETS/broker/server.main.recorder-1.url:/run/secrets/broker.url:ro"
key="--volume $UNDERSTUDY_SECRETS/fleet.key:/run/secrets/fleet.key:ro"
token="--volume $UNDERSTUDY_SECRETS/fleet.token:/run/secrets/fleet.token:ro"
with="--config /etc/understudy/understudy.toml --listen 127.0.0.1:7600"
echo short >"$run/short" && chmod 444 "$run/short"
# shellcheck disable=SC2086 # words
{
    refuses "without the broker's address" 'broker.url_file: can.t read /run/secrets/broker.url: .*; put the broker' $settings $token "$image" monitor $with
    refuses "without the fleet's key" 'fleet_key_file: .*/run/secrets/fleet.key: .*understudy server key' $settings $broker "$image" orchestrator $with
    refuses "with a wrong fleet's key" 'fleet_key_file: .*/run/secrets/fleet.key holds no fleet key.*copy' $settings $broker \
        --volume "$run/short:/run/secrets/fleet.key:ro" "$image" orchestrator $with
    refuses "without the API's token" '\[console\] token: .*console.token: .*; put the secret there' $settings $broker "$image" console $with
    refuses "with a short token" '\[console\] token' $settings $broker --volume "$run/short:/run/secrets/console.token:ro" "$image" console $with
    refuses "with a broker's address that is none" 'broker.url_file: /run/secrets/broker.url holds no AMQP URL.*amqp://user' $settings $token --volume "$run/short:/run/secrets/broker.url:ro" "$image" monitor $with
    refuses "without the fleet's token" 'fleet.token: .*fleet.token: .*; put the secret there' $settings $broker "$image" monitor $with
    refuses "with a short fleet's token" 'fleet.token: .*openssl rand' $server $broker $key --volume "$run/short:/run/secrets/fleet.token:ro" "$image" sync $with
    mkdir -p "$work/roots" && chmod 755 "$work/roots"
    refuses "without write access to its volume" "/var/lib/understudy.* can.t be written to.*chown" $server $broker $key \
        --volume "$work/roots:/var/lib/understudy" "$image" ingest $with
}
say "it says which secret or right is missing, and what to do"
