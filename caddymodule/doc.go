// Package caddymodule gives Caddy accounts at APIs that want OAuth 2.0: an
// application that knows nothing of OAuth talks to a site of this server, and
// the server sends each request on with the account's access token.
//
// The modules are the app `bearer` ([App], with its stores [BoltStore] and
// [MemoryStore]), the transport `http.reverse_proxy.transport.bearer`
// ([Transport]), the handler `http.handlers.bearer_guard` ([Guard]) and the
// admin endpoint `admin.api.bearer` ([Admin]). In the Caddyfile there are the
// global option bearer and the directives bearer_proxy and bearer_guard; on
// the command line there is `caddy bearer`.
package caddymodule
