#!/usr/bin/env bash
# Slurm and munge for tests/cluster, from Debian's or Ubuntu's packages; needs root.
# Exits with 0 where it cannot: the tests then say what they lack and are skipped.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

missing=
for program in munged slurmctld slurmd; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Slurm: to install it, root and apt-get are needed"
    exit 0
fi
# The packages' own services are not wanted: RUNLEVEL=1 keeps them from being started.
export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install --yes --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1 ||
    echo "no Slurm: apt-get could not install slurm-wlm and munge"
