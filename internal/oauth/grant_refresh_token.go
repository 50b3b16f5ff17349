package oauth

// RefreshToken is the grant of an account whose first refresh token comes from
// elsewhere: an integration that is moved here brings its own (see
// [Session.Import]). Without one, or when it is dead, a person has to import
// another.
type RefreshToken struct{ needsPerson }

func (RefreshToken) Type() string { return "refresh_token" }
func (g RefreshToken) Now() Grant { return g }
