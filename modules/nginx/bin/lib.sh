# What the scripts of this module share. Sourced, never run.

: "${CONF:=/etc/nginx/nginx.conf}" "${PORT:=80}" "${SAFEMODULE:=nginx}"

say() { echo "$SAFEMODULE: $*"; }
fail() { say "$*" >&2; exit 1; }

# nginx's first processes in this network (in a lab, nodes share the machine's processes).
masters() {
    local pid
    for pid in $(pgrep -f '^nginx: master process'); do
        [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] && echo "$pid"
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
