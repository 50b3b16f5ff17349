#!/bin/sh
# Builds Caddy with this module and any others, for instance:
#   ./xcaddy.sh --with github.com/caddy-dns/cloudflare
# It needs xcaddy (go install github.com/caddyserver/xcaddy/cmd/xcaddy@latest).
set -eu
cd "$(dirname "$0")"
# Go before 1.26.9 has a flaw that touches proxies (CVE-2026-56866).
export GOTOOLCHAIN="${GOTOOLCHAIN:-go1.26.10}"
exec xcaddy build v2.11.9 \
	--with github.com/caddy-bearer/caddy-bearer/caddymodule \
	--replace github.com/caddy-bearer/caddy-bearer=. \
	"$@"
