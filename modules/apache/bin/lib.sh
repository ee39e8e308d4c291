# What the scripts of this module share. Sourced, never run.

: "${CONF:=/etc/apache2/apache2.conf}" "${PORT:=80}" "${SAFEMODULE:=apache}"
# What the distribution's configuration refers to (in its own, all of these are set already).
[ -r /etc/apache2/envvars ] && . /etc/apache2/envvars

say() { echo "$SAFEMODULE: $*"; }
fail() { say "$*" >&2; exit 1; }

# Apache's first processes in this network (in a lab, nodes share the machine's processes): those whose parent is no Apache.
masters() {
    local pid
    for pid in $(pgrep -f -- "apache2 .*-k start"); do
        [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] || continue
        [ "$(cat "/proc/$(ps -o ppid= -p "$pid" | tr -d ' ')/comm" 2> /dev/null)" = apache2 ] || echo "$pid"
    done
}

# Waits until no first process is left, at most this many seconds.
gone_within() {
    local ticks=$(($1 * 20))
    while [ -n "$(masters)" ]; do
        [ $((ticks--)) -gt 0 ] || return 1
        sleep 0.05
    done
}
