package sandbox

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// callbackFault describes a fault of the redirect that answers an
// authorization request.
func callbackFault(f Fault, description string) FaultInfo {
	return FaultInfo{f, description, endpointAuthorize, "authorization_code"}
}

// fragmentFault is one of the redirect that brings Aidbox's secure code.
func fragmentFault(f Fault, description string) FaultInfo {
	return FaultInfo{f, description, endpointAuthorize, "password"}
}

// idTokenFault is one of a code's exchange, with openid in its scope.
func idTokenFault(f Fault, description string) FaultInfo {
	return FaultInfo{f, description, endpointToken, "authorization_code"}
}

func discoveryFault(f Fault, description string) FaultInfo {
	return FaultInfo{Name: f, Description: description, Endpoint: endpointDiscovery}
}

// foreign stands where another server's name or an identifier is wrong.
const foreign = "https://foreign.invalid"

// loginBehaviours are the faults of everything that a login needs.
var loginBehaviours = []behaviour{
	{info: callbackFault(AccessDenied, "the callback brings access_denied, whatever the person says"), deny: denied()},
	{
		info: callbackFault(HostileDescription, "access_denied with 10 kB of HTML, line breaks and escape sequences"),
		deny: &refusal{code: "access_denied", description: hostileText()},
	},
	{info: callbackFault(WrongIss, "the callback's iss is another server's"), callback: callbackWith("iss", foreign)},
	{info: callbackFault(NoIss, "the callback lacks iss"), callback: callbackWithout("iss")},
	{info: callbackFault(EmptyIss, "the callback's iss is empty"), callback: callbackWith("iss", "")},
	{info: callbackFault(CodeAndError, "the callback brings code and error"), callback: codeAndError},
	{info: callbackFault(RepeatedCode, "the callback brings code twice, the second one wrong"), callback: callbackRepeated("code")},
	{info: callbackFault(RepeatedState, "the callback brings state twice, the second one wrong"), callback: callbackRepeated("state")},
	{info: callbackFault(WrongState, "the callback's state is wrong"), callback: callbackWith("state", "wrong-state")},
	{info: callbackFault(NoState, "the callback lacks state"), callback: callbackWithout("state")},
	{info: callbackFault(NoCode, "the callback brings neither code nor error"), callback: callbackWithout("code")},

	{info: fragmentFault(WrongFragmentState, "the state beside a secure code is wrong"), callback: callbackWith("state", "wrong-state")},
	{info: fragmentFault(OtherRedirect, "the redirect with a secure code goes to another host"), elsewhere: foreign + "/auth.html"},
	{info: fragmentFault(HugeFragment, "a MiB in the fragment, beside the secure code"), callback: func(ps parameters) parameters {
		return append(parameters{{"padding", strings.Repeat("x", 1<<20)}}, ps...)
	}},

	{info: idTokenFault(WrongNonce, "the id_token's nonce is wrong"), claims: claim("nonce", quote("wrong-nonce"))},
	{info: idTokenFault(WrongAudience, "the id_token is for another client"), claims: claim("aud", quote("another-client"))},
	{info: idTokenFault(WrongIssuer, "the id_token is of another issuer"), claims: claim("iss", quote(foreign))},
	{info: idTokenFault(ExpiredIDToken, "the id_token expired an hour ago"), claims: func(m members) members {
		return m.set("exp", strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10))
	}},
	{info: idTokenFault(NoIDToken, "no id_token in the answer"), shape: func(m members) members { return m.drop("id_token") }},

	{info: discoveryFault(WrongDiscoveryIssuer, "the discovery document is of another issuer"), shape: func(m members) members {
		return m.set("issuer", quote(foreign))
	}},
	{info: discoveryFault(DiscoveryAway, "503 in place of the discovery document"), answer: refuseWith(http.StatusServiceUnavailable, "temporarily_unavailable")},
	{info: discoveryFault(DiscoveryMoved, "the discovery document's token endpoint is on another host name"), shape: moveTokenEndpoint},
	{info: discoveryFault(DiscoveryHTTP, "the discovery document's endpoints are on a foreign host, without TLS"), shape: plainEndpoints},

	{
		info:   FaultInfo{Name: RevokeAway, Description: "a revocation gets 503; the tokens live on", Endpoint: endpointRevoke},
		answer: refuseWith(http.StatusServiceUnavailable, "temporarily_unavailable"),
	},
}

func callbackWith(name, value string) func(parameters) parameters {
	return func(ps parameters) parameters { return ps.with(name, value) }
}

func callbackWithout(name string) func(parameters) parameters {
	return func(ps parameters) parameters { return ps.without(name) }
}

func callbackRepeated(name string) func(parameters) parameters {
	return func(ps parameters) parameters { return ps.repeated(name) }
}

func codeAndError(ps parameters) parameters {
	for _, p := range ps {
		if p.name == "error" {
			return ps.with("code", opaque(24)) // leads to nothing
		}
	}
	return ps.with("error", "access_denied")
}

func claim(name, raw string) func(members) members {
	return func(m members) members { return m.set(name, raw) }
}

// hostileText is what RFC 6749 §10.14 warns of: it would be a script in a
// page, a line of its own in a log and colours in a terminal.
func hostileText() string {
	const text = "<script>alert(1)</script><img src=x onerror=alert(1)>\r\nlevel=error msg=\"forged\"\r\n" +
		"Set-Cookie: forged=1\r\n\x1b[2J\x1b[31mred\x1b]0;title\a \u202eright to left {env.HOME} {file./etc/passwd} \x00"
	return strings.Repeat(text, 10<<10/len(text)+1)
}
