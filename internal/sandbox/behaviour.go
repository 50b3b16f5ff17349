package sandbox

import (
	"net/http"
	"slices"
)

// A behaviour is what a fault does, at the one stage of the answer that it
// concerns. The zero behaviour is a server in order.
type behaviour struct {
	info FaultInfo

	answer func(*Sandbox, *exchange) // answers in place of the server; nothing is committed
	outage bool                      // so is a request of any method answered: the server fails, or something in front of it does
	mode   refreshMode               // how the refresh token is given out
	wait   bool                      // waits between commit and answer
	after  func(*Sandbox, *exchange) // answers, after the server has committed what it was asked for
	shape  func(members) members     // changes the members of a successful answer
	send   func(*exchange, members)  // sends a successful answer in its own way

	claims func(members) members // changes the claims of the id_token

	deny      *refusal                    // of the authorization endpoint, whatever the person says
	callback  func(parameters) parameters // changes what the callback brings
	elsewhere string                      // where the browser is sent in place of the redirect URI
}

// tokenFault describes a fault of the token endpoint, for any grant type.
func tokenFault(f Fault, description string) FaultInfo {
	return FaultInfo{Name: f, Description: description, Endpoint: endpointToken}
}

func refreshFault(f Fault, description string) FaultInfo {
	return FaultInfo{f, description, endpointToken, "refresh_token"}
}

func passwordFault(f Fault, description string) FaultInfo {
	return FaultInfo{f, description, endpointToken, "password"}
}

func apiFault(f Fault, description string) FaultInfo {
	return FaultInfo{Name: f, Description: description, Endpoint: endpointAPI}
}

// expiry returns a behaviour that sends another expires_in; raw is JSON.
func expiry(f Fault, raw string) behaviour {
	return behaviour{
		info:  tokenFault(f, "expires_in is "+raw),
		shape: func(m members) members { return m.set("expires_in", raw) },
	}
}

// behaviours are all faults, in the order of the help.
var behaviours = slices.Concat(tokenBehaviours, loginBehaviours)

// tokenBehaviours are the faults of token requests, whatever the login, and of
// the API.
var tokenBehaviours = []behaviour{
	{info: tokenFault(LostReply, "commits, then the connection is closed without an answer"), after: abort},
	{info: tokenFault(Slow, "commits, then the answer takes 15 s (Config.SlowFor)"), wait: true},
	{info: tokenFault(ServerError, "500 before commit"), answer: serverError, outage: true},
	{info: tokenFault(LateServerError, "500 after commit"), after: serverError},
	{info: tokenFault(BadGateway, "502 with HTML, as a proxy in front of the server sends"), answer: page(http.StatusBadGateway, "Bad Gateway"), outage: true},
	{info: tokenFault(TooManyRequests, "429 with Retry-After: 2 (Config.RetryAfter)"), answer: tooManyRequests, outage: true},
	{info: tokenFault(Unavailable, "503 without Retry-After"), answer: refuseWith(http.StatusServiceUnavailable, "temporarily_unavailable"), outage: true},
	{info: tokenFault(HTML, "200 with HTML, as a captive portal sends"), answer: page(http.StatusOK, "Please log in to the network"), outage: true},
	{info: tokenFault(HTMLForbidden, "403 with HTML, as a web application firewall sends"), answer: page(http.StatusForbidden, "Request blocked"), outage: true},
	{info: tokenFault(Redirect, "307 to another path; if it is followed, the log says so"), answer: redirect, outage: true},
	{info: tokenFault(Huge, "commits; more than 8 MiB of JSON, the tokens after the first MiB"), send: sendHuge},
	{info: tokenFault(Truncated, "commits; the JSON breaks off after the complete refresh token"), send: sendTruncated},

	{info: tokenFault(NoExpiry, "no expires_in"), shape: func(m members) members { return m.drop("expires_in") }},
	expiry(StringExpiry, `"600"`),
	expiry(FloatExpiry, `600.0`),
	expiry(ZeroExpiry, `0`),
	expiry(NonsenseExpiry, `"soon"`),
	expiry(NegativeExpiry, `-600`),

	{info: refreshFault(SameRefreshToken, "a refresh answers with the same refresh token, which stays valid"), mode: keepSame},
	{info: tokenFault(NoRefreshToken, "no refresh token in the answer; a refresh leaves the old one valid"), mode: keepMute},
	{info: tokenFault(EmptyRefreshToken, "an empty refresh token in the answer; a refresh leaves the old one valid"), mode: keepEmpty},

	{info: tokenFault(UpperTokenType, "token_type is BEARER"), shape: func(m members) members { return m.set("token_type", `"BEARER"`) }},
	{info: tokenFault(MACTokenType, "token_type is mac"), shape: func(m members) members { return m.set("token_type", `"mac"`) }},
	{info: tokenFault(BadAccessToken, "an access token with a line break and a header line in it"), shape: badAccessToken},
	{info: tokenFault(ExtraMembers, "unknown members of every type before and after the known ones"), shape: extraMembers},
	{info: tokenFault(TextPlain, "correct JSON as text/plain"), send: sendTextPlain},

	{info: refreshFault(Dead401, "a refresh is refused with 401 invalid_grant; the refresh token stays"), answer: refuseWith(http.StatusUnauthorized, "invalid_grant")},
	{info: refreshFault(Dead400InvalidRequest, "a refresh is refused with 400 invalid_request; the refresh token stays"), answer: refuseWith(http.StatusBadRequest, "invalid_request")},
	{info: refreshFault(Dead400Empty, "a refresh is refused with 400 and no body; the refresh token stays"), answer: empty(http.StatusBadRequest)},
	{info: tokenFault(Empty401, "401 with no body"), answer: empty(http.StatusUnauthorized)},
	{info: passwordFault(WrongPassword, "any password is wrong: 400 invalid_grant"), answer: wrongPassword(http.StatusBadRequest)},
	{info: passwordFault(WrongPassword401, "any password is wrong: 401 invalid_grant"), answer: wrongPassword(http.StatusUnauthorized)},
	{info: passwordFault(WrongPassword403, "any password is wrong: 403 invalid_grant"), answer: wrongPassword(http.StatusForbidden)},
	{info: tokenFault(InvalidClient, "any client is wrong: 401 invalid_client"), answer: refuseWith(http.StatusUnauthorized, "invalid_client")},
	{info: tokenFault(InvalidScope, "any scope is wrong: 400 invalid_scope"), answer: refuseWith(http.StatusBadRequest, "invalid_scope")},

	{info: apiFault(RejectAccessToken, "the API refuses a live access token with 401 invalid_token"), answer: rejectAccessToken},
	{info: apiFault(Reject403, "the API refuses a live access token with 403 and no challenge"), answer: apiAnswer(http.StatusForbidden, "forbidden")},
	{info: apiFault(API500, "the API answers 500"), answer: apiAnswer(http.StatusInternalServerError, "server_error")},
}
