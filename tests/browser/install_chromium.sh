#!/usr/bin/env bash
# Installs Chromium and its driver from Debian's packages, for the tests in this folder.
# For CI machines and containers alone: it needs root.
set -euo pipefail
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
[ "$(id -u)" = 0 ] || { echo "needs root to install Chromium" >&2; exit 3; }
command -v apt-get >/dev/null || { echo "no apt-get to install Chromium with" >&2; exit 3; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core >/dev/null
