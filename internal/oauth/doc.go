// Package oauth gets and keeps OAuth 2.0 tokens for accounts that act by
// themselves. It knows nothing of Caddy.
//
// An [Account] is one identity: a [Client], a [Grant], a scope and a name. Its
// [Session] is the live token state: [Session.Token] gives an access token,
// [Session.Reject] tells that the API refused one. [Sessions] are those of one
// [Store]; they outlive configurations.
//
// A refresh is a flight: the store's lock, load again, decide (decide.go, pure),
// write the intent, one token request, read the refresh token first (answer.go,
// pure), commit, publish. It belongs to the session and not to the caller who
// caused it.
//
// The wire is RFC 6749 and 6750; what servers do otherwise, and what follows
// from each answer, is in decide.go.
package oauth
