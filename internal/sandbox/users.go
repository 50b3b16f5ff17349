package sandbox

import "fmt"

// password returns a user's password.
func (c Config) password(username string) (string, bool) {
	if username == c.Username {
		return c.Password, true
	}
	password, ok := c.Users[username]
	return password, ok
}

// knownUser returns the name if it is empty or a user's, else Unknown.
func (c Config) knownUser(username string) string {
	if _, ok := c.password(username); ok || username == "" {
		return username
	}
	return Unknown
}

// SetInactive blocks a user, or lets the user in again. Password, login page
// and refresh of a blocked user are refused; access tokens live on.
func (s *Sandbox) SetInactive(username string, inactive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inactive[username] = inactive
}

// checkPassword is called with s.mu held. It counts towards Config.LockAfter.
func (s *Sandbox) checkPassword(username, password string) *refusal {
	want, known := s.config.password(username)
	if !known {
		return invalidGrant("wrong username or password")
	}
	if s.config.LockAfter > 0 && s.wrong[username] >= s.config.LockAfter {
		return invalidGrant("the user is locked")
	}
	if password != want {
		s.wrong[username]++
		return invalidGrant("wrong username or password")
	}
	delete(s.wrong, username)
	if s.inactive[username] {
		return invalidGrant("User is inactive")
	}
	return nil
}

// checkUser is what Approve asks in place of a password.
func (s *Sandbox) checkUser(username string) error {
	if _, known := s.config.password(username); !known {
		return fmt.Errorf("unknown user %q", username)
	}
	if s.inactive[username] {
		return fmt.Errorf("user %q is inactive", username)
	}
	return nil
}

// tellUser notes whose token it is, where there is a choice.
func (s *Sandbox) tellUser(e *Event, f *family) {
	if len(s.config.Users) > 0 {
		e.Username = f.user
	}
}
