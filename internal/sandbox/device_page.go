package sandbox

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// serveVerification is the page where a person enters a user code
// (RFC 8628 §3.3). It is no request of the client's, so it isn't logged.
func (s *Sandbox) serveVerification(w http.ResponseWriter, r *http.Request) {
	client := s.settings().ClientID
	page := loginForm{Client: client, Device: true, UserCode: r.URL.Query().Get("user_code")}
	switch r.Method {
	case http.MethodGet:
		sendPage(w, http.StatusOK, "login", page)
		return
	case http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, POST")
		errorPage(w, http.StatusMethodNotAllowed, "Use GET or POST.")
		return
	}
	form, refused := readFormBody(w, r)
	if refused != nil {
		errorPage(w, refused.status, refused.description)
		return
	}
	page.UserCode = form["user_code"]
	if err := s.decideDeviceByForm(form); err != nil {
		page.Message = err.Error()
		sendPage(w, http.StatusForbidden, "login", page)
		return
	}
	messagePage(w, http.StatusOK, "Done", "You may go back to your device.")
}

func (s *Sandbox) decideDeviceByForm(form map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := form["username"]
	if form["deny"] != "" {
		user = ""
	} else if refused := s.checkPassword(user, form["password"]); refused != nil {
		return errors.New(refused.description)
	}
	return s.decideDevice(form["user_code"], user)
}

// ApproveDevice plays the person who enters the user code, logs in as username
// and agrees. It is an error if the code is unknown, expired or decided on, or
// the user unknown.
func (s *Sandbox) ApproveDevice(userCode, username string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkUser(username); err != nil {
		return err
	}
	return s.decideDevice(userCode, username)
}

// DenyDevice plays the person who says no; see [Sandbox.ApproveDevice].
func (s *Sandbox) DenyDevice(userCode string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decideDevice(userCode, "")
}

// decideDevice is called with s.mu held; an empty user says no.
func (s *Sandbox) decideDevice(userCode, user string) error {
	plain := plainUserCode(userCode)
	for _, d := range s.devices {
		if d.userCode != plain {
			continue
		}
		switch {
		case !time.Now().Before(d.expires):
			return fmt.Errorf("the user code has expired")
		case d.denied || d.user != "":
			return fmt.Errorf("the user code was used before")
		}
		d.user, d.denied = user, user == ""
		return nil
	}
	return fmt.Errorf("unknown user code")
}
