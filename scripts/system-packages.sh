#!/bin/sh
# The system packages phi4 uses on Debian and Ubuntu: the one place that lists them.
#   system-packages.sh --line      print the apt line
#   system-packages.sh --install   install what is missing (needs root and apt-get)
#   system-packages.sh --missing   name what running and testing need and this machine lacks; exits 1 when something is
set -eu
# Python and make run everything; espeak-ng speaks the sentences and the fonts write the pictures of the small world
# (training, tests and the demo's fresh picture). Reading media needs none of them: its libraries come as wheels.
packages="python3 python3-venv make libespeak-ng1 espeak-ng-data fonts-dejavu-core fonts-liberation"

has_library() { ldconfig -p 2>/dev/null | grep -q "$1" || find /usr/lib /usr/local/lib -name "$1*" 2>/dev/null | grep -q .; }
has_font() { find /usr/share/fonts /usr/local/share/fonts -iname "$1" 2>/dev/null | grep -q .; }

missing() {
    command -v python3 >/dev/null 2>&1 || echo python3
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || echo python3-venv
    command -v make >/dev/null 2>&1 || echo make
    has_library libespeak-ng.so.1 || echo libespeak-ng1
    find /usr -type d -name espeak-ng-data 2>/dev/null | grep -q . || echo espeak-ng-data
    has_font 'DejaVuSans.ttf' || echo fonts-dejavu-core
    has_font 'LiberationSans-Regular.ttf' || echo fonts-liberation
}

case "${1:---line}" in
    --line) echo "apt-get install -y $packages" ;;
    --missing)
        lacking=$(missing | tr '\n' ' ')
        [ -z "$lacking" ] && exit 0
        echo "missing system packages: $lacking"
        exit 1
        ;;
    --install)
        lacking=$(missing | tr '\n' ' ')
        [ -z "$lacking" ] && exit 0
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
            echo "missing system packages: $lacking" >&2
            echo "installing them needs root and apt-get; as root: apt-get install -y $packages" >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # shellcheck disable=SC2086  # the list is meant to be split
        apt-get install -y --no-install-recommends $lacking
        ;;
    *)
        echo "usage: $0 [--line | --missing | --install]" >&2
        exit 2
        ;;
esac
