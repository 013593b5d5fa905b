#!/bin/sh
# Prints the path of a Python this package can use (3.11 or newer, able to make virtual environments).
# Tries $1 alone when it is given, else the newest of the usual names. Exits 1 with what to do when there is none.
set -u
here=$(dirname "$0")
ready='import sys, venv, ensurepip; assert sys.version_info >= (3, 11); print(sys.executable)'
for name in ${1:-python3.13 python3.12 python3.11 python3 python3.14}; do
    path=$("$name" -c "$ready" 2>/dev/null) && [ -n "$path" ] && { echo "$path"; exit 0; }
done
{
    if [ -n "${1:-}" ]; then
        echo "error: PYTHON=$1 is not a Python 3.11 or newer with the modules venv and ensurepip."
    elif command -v python3 >/dev/null 2>&1; then
        echo "error: found $(python3 --version 2>&1) at $(command -v python3), but phi4 needs Python 3.11 or newer"
        echo "       with the modules venv and ensurepip (on Debian and Ubuntu they are a package of their own)."
    else
        echo "error: there is no python3 on this machine; phi4 needs Python 3.11 or newer."
    fi
    echo "On Debian or Ubuntu, as root:"
    echo "    $(sh "$here/system-packages.sh" --line)"
    echo "Elsewhere, name one yourself: make run PYTHON=/path/to/python3.11"
} >&2
exit 1
