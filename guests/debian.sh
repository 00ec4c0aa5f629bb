# Fetches packages from Debian without root and whatever the host's apt is set up for, and packs what
# guests boot. To be sourced by scripts that set $cache, where package lists are kept, and $work, a
# directory for what comes; and that have a function fail, which ends them with a message.
# shellcheck shell=bash

# On a terminal apt shows how far it is.
apt_options=()
[ -t 1 ] || apt_options=(-qq)

# The host's own release if it is one of the Debian releases that guests come from, else the newest of
# those.
host_release() {
    local codename
    codename=$(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_CODENAME:-}")
    if [ "$codename" = debian-bookworm ]; then echo bookworm; else echo trixie; fi
}

# release_named NAME: the release of Debian's that a name or a version stands for.
release_named() {
    case $1 in
    bookworm | 12) echo bookworm ;;
    trixie | 13) echo trixie ;;
    *) fail "unknown release '$1' (known: bookworm, trixie)" ;;
    esac
}

# The mirror this host already uses, if apt knows one.
mirror() {
    local uri=${DOPPEL_MIRROR:-}
    # shellcheck disable=SC2016
    [ -n "$uri" ] || uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        'Origin: Debian' 'Label: Debian' 'Component: main' 2>/dev/null | head -1 || true)
    echo "${uri:-http://deb.debian.org/debian}"
}

# use_apt SUITE ARCH [SUITE]: points apt at lists of our own, so that neither root nor the host's
# configuration of sources and architectures matters.
use_apt() {
    local suite base=$cache/apt/${3:-$1}-$2
    export APT_CONFIG=$base/apt.conf
    mkdir -p "$base/state/lists/partial" "$base/cache/archives/partial"
    for suite in "$1" ${3:+"$3"}; do
        echo "deb [arch=$2 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "$(APT_CONFIG='' mirror) $suite main"
    done >"$base/sources.list"
    cat >"$APT_CONFIG" <<EOF
Dir::State "$base/state";
Dir::State::status "/dev/null";
Dir::Cache "$base/cache";
Dir::Etc::SourceList "$base/sources.list";
Dir::Etc::SourceParts "-";
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "1";
APT::Update::Error-Mode "any";
Acquire::http::Timeout "${DOPPEL_MIRROR_TIMEOUT:-20}";
EOF
    # Once a day is often enough.
    if [ -z "$(find "$base/state/lists" -name '*_InRelease' -mmin -1440)" ]; then
        echo "Fetching Debian's package list (${3:-$1}, $2)"
        apt-get "${apt_options[@]}" update || return 1
        find "$base/state/lists" -name '*_InRelease' -exec touch {} +
    fi
}

# unpack PACKAGE...: downloads them and unpacks them into $work/unpacked.
unpack() {
    local package
    echo "Fetching $* from Debian"
    rm -rf "$work"/*.deb "$work/unpacked"
    (cd "$work" && apt-get "${apt_options[@]}" download "$@") || fail "cannot download from Debian: $*"
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/unpacked"
    done
}

# The package that a package which only depends on the newest version stands for.
newest() {
    apt-cache show --no-all-versions "$1" | sed -n 's/^Depends: \([^ ,]*\).*/\1/p'
}

# newer TARGET FILE...: whether one of the files is newer than the target, or the target missing.
newer() {
    local target=$1 file
    shift
    for file in "$@"; do
        [ -e "$target" ] && [ ! "$file" -nt "$target" ] || return 0
    done
    return 1
}

# pack DIRECTORY: writes it as an initramfs. Not compressed, because the guest would spend longer on
# unpacking it than the host does on reading it. Archives one after the other are one initramfs.
pack() {
    (cd "$1" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0 --reproducible)
}
