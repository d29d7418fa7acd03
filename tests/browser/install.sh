#!/usr/bin/env bash
# Chromium for tests/browser, from Debian's packages; needs root.
# Exits with 0 where it cannot: the tests then say what they lack and are skipped.
set -euo pipefail

command -v chromium >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Chromium: to install it, root and apt-get are needed"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install --yes --no-install-recommends chromium; } >/dev/null 2>&1 ||
    echo "no Chromium: apt-get could not install it"
