#!/usr/bin/env bash
# Puts the real servers of the tests on a Debian machine: programs by apt, jars by Maven into test/.servers. What is there already stays.
# Use: install.sh [program:package …]. Programs named so are installed as well.
set -euo pipefail
cd "$(dirname "$0")"

packages=()
need() { # need <program> <package>: Debian keeps some server programs outside of PATH
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || need postgres postgresql
need setpriv util-linux
need redis-server redis-server
need nats-server nats-server
need mariadbd mariadb-server
need javac default-jdk-headless
need mvn maven
for pair in "$@"; do need "${pair%%:*}" "${pair##*:}"; done

if [ "${#packages[@]}" -gt 0 ]; then
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo --preserve-env=RUNLEVEL,DEBIAN_FRONTEND"
  # Run level 1: the packages' own servers do not start.
  export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
  $sudo apt-get update
  $sudo apt-get install -y --no-install-recommends "${packages[@]}"
fi

cache="$(cd ../.. && pwd)/.servers"
for pom in java/*/pom.xml; do
  name="$(basename "$(dirname "$pom")")"
  # The pom it was filled from lies beside the jars, written last: another pom, or a broken attempt, fills it anew.
  cmp -s "$pom" "$cache/$name/pom.xml" && continue
  rm -rf "${cache:?}/$name"
  mkdir -p "$cache/$name"
  mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$cache/$name/lib"
  cp "$pom" "$cache/$name/pom.xml"
done
