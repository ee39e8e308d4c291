# What the scripts of this module share. Sourced, never run.
# Everything here works from /proc, not from the data directory: while writes are held, a look into it waits.

: "${PGDIR:?is set by <var> in userconfig.xml}" "${PGPORT:=5432}" "${PGUSER:=postgres}" "${TRUST_NETWORK:=}"
: "${SAFEMODULE:=postgresql}" "${SAFEUSERRUN:=/run/stead/$SAFEMODULE}"
socket_dir=/run/postgresql
# There while PostgreSQL runs, and after it ended in disorder; gone after a reboot, as SAFEUSERRUN is.
unclean=$SAFEUSERRUN/unclean

say() { echo "$SAFEMODULE: $*"; }
fail() { say "$*" >&2; exit 1; }

# An existing data directory as it is, a new one in data/ (the top of a mount is no place for a database).
find_data() {
    data=$PGDIR
    [ -e "$PGDIR/PG_VERSION" ] || data=$PGDIR/data
}

# The programs of the version that the data has; for new data, the newest installed.
find_programs() {
    local version='' candidate
    [ -r "$data/PG_VERSION" ] && read -r version < "$data/PG_VERSION"
    for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV); do
        [ -x "$candidate/postgres" ] || continue
        case $version,$candidate in
            ,* | "$version,/usr/lib/postgresql/$version/bin" | "$version,/usr/pgsql-$version/bin") programs=$candidate; return ;;
        esac
    done
    candidate=$(command -v postgres) || fail "PostgreSQL${version:+ $version} is not installed on this node: 'apt install postgresql${version:+-$version}', the same version on both nodes"
    programs=$(dirname "$(readlink -f "$candidate")")
}

# Runs as the database's user, without a login shell: PostgreSQL refuses to run as root.
as_user() {
    if [ "$(id -u)" != 0 ]; then "$@"
    else setpriv --reuid="$PGUSER" --regid="$(id -g "$PGUSER")" --init-groups -- "$@"; fi
}

# Processes whose working directory is this data directory: PostgreSQL's, all of them and no others.
# Both places, because which one it is can only be seen when the directory is mounted.
processes() {
    local top=${PGDIR//[\[\]*?\\]/?}
    find /proc -mindepth 2 -maxdepth 2 -path '/proc/[0-9]*' -name cwd \( -lname "$top" -o -lname "$top/data" \) 2>/dev/null |
        while IFS=/ read -r _ _ pid _; do
            read -r name 2>/dev/null < "/proc/$pid/comm" || continue
            case $name in postgres|postmaster) echo "$pid" ;; esac
        done
}

# Of these, the one that no other of them started. What a dead one left is none: its title says what it did for it.
postmaster() {
    local all pid parent title
    all=" $(processes | tr '\n' ' ') "
    for pid in $all; do
        { IFS= read -r -d '' title < "/proc/$pid/cmdline"; } 2>/dev/null
        case $title in "postgres: "*) continue ;; esac
        parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null) || continue
        case $all in *" $parent "*) ;; *) [ -n "$parent" ] && { echo "$pid"; return; } ;; esac
    done
}

# Kills what belongs to this data directory and nothing else; up to 3 s, a process in a write may take its time.
kill_leftovers() {
    local all try
    for try in {1..60}; do
        all=$(processes)
        [ -z "$all" ] && return 0
        [ "$try" = 1 ] && say "killing left-over processes:" $all
        # shellcheck disable=SC2086
        kill -KILL $all 2>/dev/null
        sleep 0.05
    done
    fail "these processes of the data directory do not end:" $all
}

# Waits until a process is gone, at most this many seconds.
gone_within() {
    local pid=$1 ticks=$(($2 * 20))
    while [ -d "/proc/$pid" ] && [ "$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)" != Z ]; do
        [ $((ticks--)) -gt 0 ] || return 1
        sleep 0.05
    done
}
