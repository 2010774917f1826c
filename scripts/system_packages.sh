#!/bin/sh
# Installs the Debian packages that some tests run for real; without them those tests are skipped, and say so.
#   sudo sh scripts/system_packages.sh
set -eu

packages=
# need PROGRAM PACKAGE...: the packages, unless the program is there
need() {
    program=$1; shift
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || packages="$packages $*"
}
need slurmctld slurm-wlm munge  # a cluster: tests/cluster
need pdflatex texlive-latex-base texlive-latex-recommended latex-cjk-chinese latex-cjk-chinese-arphic-gbsn00lp
need chromedriver chromium chromium-driver
need haproxy haproxy  # in front of research serve: tests/deploy
need promtool prometheus
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"

[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "only root can install packages; ask for:$packages" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # several words
apt-get install -qq -y --no-install-recommends $packages >/dev/null
