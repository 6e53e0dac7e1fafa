# Shared words of the scripts in ci/. Sourced, never run.
#
# Gives: ROOT (the repository), TOOLS (where fetched tools live), BUILD (release, or debug if
# ALTNET_BUILD says so), say, die, need_apt, apt_tree, unpack_apt, need_pip, need_npm. Nothing here writes outside the repository except apt itself.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
TOOLS=$TARGET/ci-tools
BUILD=${ALTNET_BUILD:-release}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
mkdir -p "$TOOLS"

say() { printf '%s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# apt without questions, without a terminal, and patient with another apt. Whatever a package
# starts must not hold the lock of ci/install.
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -o APT::Architectures="$(dpkg --print-architecture)" "$@" </dev/null 9>&-
}

# A fresh index, once per process and not again within the hour.
apt_index() {
    local stamp=$TOOLS/apt-index
    [ -n "$(find "$stamp" -mmin -60 2>/dev/null)" ] && return 0
    say "apt-get update"
    apt_get update >/dev/null && mkdir -p "$TOOLS" && touch "$stamp"
}

is_installed() {
    dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

# need_apt PACKAGE...: installs those that are absent. Quick when none is.
need_apt() {
    local package missing=()
    for package in "$@"; do is_installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing and only root can install them: ${missing[*]}"
    apt_index || die "apt-get update failed"
    say "installing ${missing[*]}"
    if ! apt_get install --no-install-recommends "${missing[@]}" >"$TOOLS/apt.log" 2>&1; then
        # The index may have gone stale under us (a 404 on an old version), or another run was ended in the middle of this: once more.
        DEBIAN_FRONTEND=noninteractive dpkg --configure -a >"$TOOLS/apt.log" 2>&1 </dev/null 9>&- || true
        rm -f "$TOOLS/apt-index"
        apt_index
        apt_get install --no-install-recommends "${missing[@]}" >"$TOOLS/apt.log" 2>&1 ||
            { tail -n 20 "$TOOLS/apt.log" >&2; die "apt could not install: ${missing[*]}"; }
    fi
}

# The mirror this machine already trusts, for suites it does not list; that of security updates for theirs.
apt_mirror() {
    local mirror
    mirror=$(awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null)
    case ${1:-} in
    *-security) awk '/^URIs:/ { uri = $2 } /^Suites:.*-security/ { print uri; found = 1; exit } END { if (!found) print mirror "-security" }' \
        mirror="${mirror%/}" /etc/apt/sources.list.d/*.sources 2>/dev/null ;;
    *) echo "$mirror" ;;
    esac
}

# apt_tree DIR ARCHITECTURE COMPONENTS SUITE...: a private apt tree for these suites, with apt's own signature
# checks, whatever this machine's architecture. With APT_CONFIG=DIR/conf apt knows nothing else.
apt_tree() {
    local apt=$1 arch=$2 components=$3 suite
    shift 3
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    : >"$apt/status"
    for suite in "$@"; do
        printf 'deb [arch=%s signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s %s\n' \
            "$arch" "$(apt_mirror "$suite")" "$suite" "$components"
    done >"$apt/sources.list"
    cat >"$apt/conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
Acquire::Retries "3";
Acquire::Languages "none";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
    APT_CONFIG=$apt/conf apt-get -qq update </dev/null
}

# unpack_apt SUITE DIR PACKAGE...: fetches packages of any Debian suite through a private apt tree, and unpacks them
# under DIR. Installs nothing. SUITE:ARCHITECTURE has those of another architecture.
unpack_apt() {
    local suite=${1%%:*} dir=$2 arch=${1#"${1%%:*}"} apt=$TOOLS/apt-${1/:/-} deb
    arch=${arch#:}
    shift 2
    mkdir -p "$dir" "$apt"
    (
        apt_tree "$apt" "${arch:-$(dpkg --print-architecture)}" main "$suite"
        export APT_CONFIG=$apt/conf
        rm -f "$apt"/debs/*.deb
        cd "$apt/debs"
        apt-get -qq download "$@" </dev/null
    ) 2>"$apt/log" || { tail -n 5 "$apt/log" >&2; die "apt could not fetch from $suite: $*"; }
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$dir"; done
}

# need_pip COMMAND PACKAGE==VERSION...: a tool from PyPI in the tools' own virtual environment.
need_pip() {
    local command=$1 venv=$TOOLS/venv
    shift
    [ -x "$venv/bin/$command" ] && return 0
    if [ ! -x "$venv/bin/pip" ]; then
        python3 -m venv "$venv" >/dev/null 2>&1 || {
            need_apt python3 python3-venv
            rm -rf "$venv"
            /usr/bin/python3 -m venv "$venv"
        }
    fi
    say "fetching $*"
    "$venv/bin/pip" install -q --cache-dir "$TOOLS/pip-cache" "$@" </dev/null
}

# need_npm GROUP PACKAGE VERSION: a package of Node's with what it needs, under the tools. None of
# their install scripts run.
need_npm() {
    local dir=$TOOLS/npm-$1 package=$2 version=$3
    grep -qs "\"version\": \"$version\"" "$dir/node_modules/$package/package.json" && return 0
    command -v npm >/dev/null || die "npm is not on PATH: install Node 20 or later first"
    say "fetching $package $version"
    mkdir -p "$dir"
    npm install --prefix "$dir" --no-audit --no-fund --ignore-scripts --silent "$package@$version" </dev/null ||
        die "npm could not install $package $version"
}
