#!/bin/sh
# Inside a container of Debian 12: what the package leaves, keeps and takes away. /packages has an old and a new one.
set -eu
say() { echo "package: $*"; }
die() { echo "package: $*" >&2; exit 1; }
units=/usr/lib/systemd/system
unit=$units/understudy-ingest.service
services="orchestrator monitor license notifier console agent ingest sync"
# Files of packages and their states, without what apt and dpkg write for themselves.
everything() { find / -xdev \( -path /tmp -o -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/log -o -path /etc/ssl/certs \) -prune -o -print | sort; }
version() { dpkg-query --show --showformat '${db:Status-Abbrev}${Version}' understudy; }

apt-get update -q
# What it depends on first: only what the package itself does is compared below.
# shellcheck disable=SC2046 # words
apt-get install -y -q --no-install-recommends $(dpkg-deb --field /packages/old.deb Depends | sed 's/([^)]*)//g; s/,/ /g')
everything >/tmp/before
say "what it depends on is there"

# --- Install ---
dpkg --install /packages/old.deb
understudy --version
[ "$(stat -c '%U:%G %a' /etc/understudy)" = "root:understudy 750" ] || die "/etc/understudy is open"
[ "$(stat -c '%U:%G %a' /etc/understudy/understudy.toml)" = "root:understudy 640" ] || die "the configuration is open"
[ -f "$unit" ] || die "no units"
[ "$(systemctl is-enabled understudy-server.target)" = disabled ] || die "it switched itself on"
for service in $services; do systemd-analyze verify --man=no "$units/understudy-$service.service"; done
# The services' user can read the configuration, and is told what to do next.
as_user() { setpriv --reuid understudy --regid understudy --clear-groups --no-new-privs "$@"; }
# As systemd starts it where there is no address for it.
handed=/run/credentials/understudy-monitor.service/broker.url
mkdir -p "${handed%/*}"
sed -n 's/^SetCredential=broker.url://p' "$units/understudy-monitor.service" >"$handed"
if as_user env UNDERSTUDY_BROKER__URL_FILE="$handed" understudy monitor --config /etc/understudy/understudy.toml --listen 127.0.0.1:7600 >/tmp/said 2>&1; then
    die "it started without a broker"
fi
grep -q "$handed holds no AMQP URL.*/etc/understudy/broker/" /tmp/said || die "it does not say what is missing: $(cat /tmp/said)"
rm -r "${handed%/*}"
# The addresses of the broker are made by what is there, and are root's.
/usr/share/understudy/accounts --at amqp://127.0.0.1:5672 /tmp/accounts console monitor >/tmp/definitions
install -m 600 /tmp/accounts/addresses/host/console.url /etc/understudy/broker/
[ "$(stat -c '%U:%G %a' /etc/understudy/broker)" = "root:root 700" ] || die "the broker's addresses are open"
if as_user cat /etc/understudy/broker/console.url 2>/dev/null; then die "each service can read the console's address"; fi
[ -f /usr/share/man/man1/understudy.1.gz ] || [ -n "$(sed -n '/path-exclude.*man/p' /etc/dpkg/dpkg.cfg.d/* 2>/dev/null)" ] || die "no manual page"
say "installed"

# --- Upgrade: what the operator changed and what was recorded stays ---
systemctl enable understudy-server.target 2>/dev/null
echo '# mine' >>/etc/understudy/understudy.toml
install -m 640 -o root -g understudy /dev/null /etc/understudy/fleet.key
install -d -o understudy -g understudy -m 700 /var/lib/understudy
echo film >/var/lib/understudy/film
# As it was when all services had one address.
rm -r /etc/understudy/broker
printf '[broker]\nurl_file = "/etc/understudy/one.url" # for all\n' >>/etc/understudy/understudy.toml
echo 'amqp://all:secret@127.0.0.1/%2f' >/etc/understudy/one.url
kept() {
    grep -q '^# mine' /etc/understudy/understudy.toml && [ -f /etc/understudy/fleet.key ] && [ -s /var/lib/understudy/film ]
}
dpkg --install /packages/new.deb
[ "$(version)" != "ii 0.0.1-1" ] || die "it was not upgraded"
kept || die "the upgrade took something away"
[ "$(systemctl is-enabled understudy-server.target)" = enabled ] || die "the upgrade switched it off"
[ "$(stat -c '%U:%G %a' /etc/understudy/understudy.toml)" = "root:understudy 640" ] || die "the upgrade opened the configuration"
for service in $services; do
    [ "$(readlink "/etc/understudy/broker/$service.url")" = /etc/understudy/one.url ] || die "$service has lost its broker"
done
# Then one gets its own.
install -m 600 /tmp/accounts/addresses/host/console.url /etc/understudy/broker/
own() { [ ! -L /etc/understudy/broker/console.url ] && cmp -s /tmp/accounts/addresses/host/console.url /etc/understudy/broker/console.url; }
own || die "an address can't take the place of the one for all"
say "upgraded to $(version)"

# --- Remove: nothing that runs is left; the configuration and recordings are ---
dpkg --remove understudy
if [ -e /usr/bin/understudy ] || [ -e "$unit" ]; then die "it was not removed"; fi
kept || die "removing took something away"
dpkg --install /packages/new.deb
kept && own || die "it does not come back as it was"
[ "$(systemctl is-enabled understudy-server.target)" = enabled ] || die "it does not come back switched on"
say "removed, and back again"

# --- Purge: nothing is left but what others put there ---
dpkg --purge understudy 2>/tmp/said
grep -q "/var/lib/understudy is not empty, and was kept" /tmp/said || die "it does not say that recordings are kept"
[ -s /var/lib/understudy/film ] || die "purging threw recordings away"
[ -f /etc/understudy/fleet.key ] || die "purging threw a key away"
own && [ -s /etc/understudy/one.url ] || die "purging threw an address away"
[ ! -L /etc/understudy/broker/agent.url ] || die "purging left what an upgrade had made"
[ ! -e /etc/understudy/understudy.toml ] || die "purging left the configuration"
rm -r /var/lib/understudy /etc/understudy
dpkg --install /packages/new.deb
dpkg --purge understudy
everything >/tmp/after
# The user stays, as Debian has it: what it owned must not become another's.
if ! diff /tmp/before /tmp/after >/tmp/left; then die "something is left: $(cat /tmp/left)"; fi
say "purged"
