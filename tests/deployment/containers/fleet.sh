# shellcheck shell=sh disable=SC2154 # of scripts/try-containers
# The fleet of infra/compose.yaml: ready soon, scraped, watched, and twice failed over and back.

export UNDERSTUDY_URL="http://127.0.0.1:$API_PORT" UNDERSTUDY_TOKEN_FILE="$UNDERSTUDY_SECRETS/console.token"
understudy() { "$executable" "$@"; }
container() { podman ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }

# --- Ready within 2 s, from the container's start --------------------------------------------------------

milliseconds() { date +%s%3N; }
# ready_after SERVICE PORT: prints how long it took.
ready_after() {
    podman stop --time 10 "$(container "$1")" >/dev/null
    from=$(milliseconds)
    podman start "$(container "$1")" >/dev/null
    address=$(podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container "$1")")
    until curl --silent --fail --output /dev/null --max-time 1 "http://$address:$2/readyz"; do
        [ $(($(milliseconds) - from)) -lt 20000 ] || die "$1 is not ready"
        sleep 0.02
    done
    echo $(($(milliseconds) - from))
}
for each in orchestrator:7600 license:7600 monitor:7600 notifier:7600 console:7600 standby-1:7611 standby-1-agent:7612 standby-1-sync:7613; do
    took=$(ready_after "${each%:*}" "${each#*:}")
    say "${each%:*} is ready $took ms after its container's start"
    [ "$took" -lt 15000 ] || die "that is far too late"
    podman healthcheck run "$(container "${each%:*}")" >/dev/null || die "its health check does not say so"
done
podman stop --time 5 "$(container license)" >/dev/null
if podman healthcheck run "$(container license)" >/dev/null 2>&1; then die "a stopped container is healthy"; fi
podman start "$(container license)" >/dev/null
[ "$(podman inspect --format '{{.HostConfig.Memory}}' "$(container license)")" = 536870912 ] || die "its memory has no bound"

# --- Cameras, and what is seen of them from outside ------------------------------------------------------

for number in 1 2; do
    understudy camera add "cam-$number" --server recorder-1 --stream "rtsp://simulator:8554/cam-00$number"
done
filmed_by() { [ "$(understudy camera list | grep -c "recorder-1 *$1 *recording")" = 2 ]; }
failover_is() { understudy failover show recorder-1 >"$work/show.log" 2>&1 && grep -q "^phase *$1" "$work/show.log"; }
protected() { understudy server list | grep "^recorder-1 " | grep -q " protected"; }

until_true "recorder-1 films" 60 filmed_by recorder-1
live() { ffprobe -v error -rtsp_transport tcp -show_entries stream=codec_name -of csv=p=0 "rtsp://$1@127.0.0.1:$RECORDER_RELAY_PORT/cam-1" 2>"$work/live.log"; }
[ "$(live "viewer:$(cat "$UNDERSTUDY_SECRETS/relay.token")")" = h264 ] || die "live view can't be had with the token"
if live viewer:wrong >/dev/null; then die "live view can be had without the token"; fi
say "live view comes from the container, with the token only"
address() { podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(container "$1")"; }
status() { curl --silent --output /dev/null --max-time 5 --write-out '%{http_code}' "$@"; }
[ "$(status --data '{}' "http://$(address monitor):7601/v1/heartbeats")" = 401 ] || die "anybody may beat for a server"
manifest="http://$(address standby-1-sync):7400/v1/restorations/failover-1/manifest"
[ "$(status "$manifest")" = 401 ] || die "anybody may fetch recordings"
[ "$(status --header "Authorization: Bearer $(cat "$UNDERSTUDY_SECRETS/fleet.token")" "$manifest")" = 200 ] || die "the fleet may not"
say "heartbeats and recordings are for the fleet only"

# --- Prometheus ------------------------------------------------------------------------------------------

# asked QUERY: the value that Prometheus has.
asked() {
    curl --silent --max-time 5 --get --data-urlencode "query=$1" "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" |
        python3 -c 'import json, sys; found = json.load(sys.stdin)["data"]["result"]; print(found[0]["value"][1] if found else "nothing")'
}
is() { [ "$(asked "$1")" = "$2" ]; }
until_true "Prometheus scrapes all eleven processes" 30 is 'count(up{job="understudy"} == 1)' 11
until_true "Prometheus sees two cameras filmed" 30 is 'sum(understudy_cameras{server="recorder-1",state="recording"})' 2
until_true "Prometheus has the recording rules" 30 is 'count(count by (__name__) ({__name__=~".+:.+"})) > bool 0' 1
until_true "Prometheus knows Alertmanager" 30 is 'prometheus_notifications_alertmanagers_discovered' 1

# --- Two failovers ---------------------------------------------------------------------------------------

parts="recorder-1 recorder-1-agent recorder-1-sync"
# round WHAT BREAK MEND
round() {
    until_true "recorder-1 films" 60 filmed_by recorder-1
    until_true "somebody would stand in for it" 60 protected
    say "$1"
    for part in $parts; do "$2" "$part"; done
    until_true "standby-1 serves" 60 failover_is serving
    until_true "standby-1 films both cameras" 30 filmed_by standby-1
    until_true "Prometheus sees it" 30 is 'max(understudy_failovers_active)' 1
    for part in $parts; do "$3" "$part"; done
    until_true "everything is handed back" 90 failover_is completed
    grep "^handed back" "$work/show.log" >&2
}
kill_it() { podman kill --signal KILL "$(container "$1")" >/dev/null; }
start_it() { podman start "$(container "$1")" >/dev/null; }
cut_it() { podman network disconnect "${project}_fleet" "$(container "$1")"; }
join_it() { podman network connect --alias "$1" "${project}_fleet" "$(container "$1")"; }

round "killing recorder-1's containers" kill_it start_it
round "cutting recorder-1's containers off" cut_it join_it
say "it came back both times"
