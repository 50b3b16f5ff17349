package oauth

import (
	"context"
)

// RefreshToken is the grant of an account whose first refresh token comes from
// elsewhere: an integration that is moved here brings its own (see
// [Session.Import]). Without one, or when it is dead, a person has to import
// another.
type RefreshToken struct{}

func (RefreshToken) Type() string       { return "refresh_token" }
func (RefreshToken) Username() string   { return "" }
func (RefreshToken) MayLogin(bool) bool { return false }
func (RefreshToken) Secrets() []Secret  { return nil }

func (g RefreshToken) Now() Grant { return g }

// SignIn is never asked for: MayLogin forbids it.
func (RefreshToken) SignIn(context.Context, *Client, string) Answer {
	return Answer{Outcome: Away, Detail: "the grant refresh_token can't sign in"}
}
