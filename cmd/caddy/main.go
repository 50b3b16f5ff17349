// Caddy with the bearer modules.
package main

import (
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-bearer/caddy-bearer/caddymodule"
)

func main() {
	hideMemory()
	caddycmd.Main()
}
