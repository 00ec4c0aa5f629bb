# Programs of a release of Debian, unpacked with all that they need, down to the C library, and not installed. To be
# sourced by scripts that set $cache, where they are put; needs no root.
# shellcheck shell=bash

unpacked_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$cache"
work=$(mktemp -d "$cache/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

. "$unpacked_here/../guests/debian.sh"

# download RELEASE PACKAGE [SUITE]: fetches the package and all that it depends on from the release, and from SUITE
# beside it, into $work.
download() {
    use_apt "$1" amd64 ${3:+"$3"} || return 1
    echo "Fetching $2 from Debian (${3:-$1})"
    mkdir -p "$work/archives/partial"
    apt-get "${apt_options[@]}" -o Dir::Cache::Archives="$work/archives" \
        -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true \
        -t "${3:-$1}" -y --download-only install "$2"
}

# unpack_downloaded: unpacks what was downloaded into $work/root.
unpack_downloaded() {
    local package
    mkdir -p "$work/root"
    for package in "$work"/archives/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    rm -rf "$work/root/usr/share/"{doc,man,locale,icons}
}

# make_runner NAME PROGRAM [LINE...]: makes $work/root/NAME, which runs PROGRAM, a file below $work/root, by the dynamic
# linker and the libraries that came with it, wherever all that is moved to. What runs before, and options, stand in
# the LINEs, where $at is that place: the last one is options, the others are commands.
make_runner() {
    local name=$1 program=$2 options=
    shift 2
    {
        cat <<'END'
#!/bin/sh
at=$(dirname "$(readlink -f "$0")")
libraries=$at/lib/x86_64-linux-gnu:$at/usr/lib/x86_64-linux-gnu
for linker in "$at/lib/x86_64-linux-gnu" "$at/usr/lib/x86_64-linux-gnu"; do
    [ ! -x "$linker/ld-linux-x86-64.so.2" ] || break
done
END
        while [ $# -gt 1 ]; do
            printf '%s\n' "$1"
            shift
        done
        options=${1:-}
        printf 'exec "$linker/ld-linux-x86-64.so.2" --library-path "$libraries" "$at/%s" %s "$@"\n' "$program" "$options"
    } >"$work/root/$name"
    chmod +x "$work/root/$name"
}

# keep AS: has what was unpacked take the place of $cache/AS.
keep() {
    rm -rf "${cache:?}/$1"
    mv "$work/root" "$cache/$1"
}
