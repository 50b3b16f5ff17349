package sandbox

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// deviceGrant is the grant type of RFC 8628 §3.4.
const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// slowDown is what each slow_down adds to the interval (RFC 8628 §3.5).
const slowDown = 5 * time.Second

// A deviceLogin is one device authorization, from its request to its tokens.
type deviceLogin struct {
	userCode string // without the hyphen
	scope    string
	expires  time.Time
	interval time.Duration
	polled   time.Time // the latest poll
	user     string    // who approved
	denied   bool
	used     bool
	family   *family
}

// serveDevice is the device authorization endpoint (RFC 8628 §3.1).
func (s *Sandbox) serveDevice(w http.ResponseWriter, r *http.Request) {
	form, refused := readForm(w, r)
	if r.Method != http.MethodPost {
		refused = methodRefused("use POST")
	}
	x := s.begin(w, r, s.settings().clientEvent(KindDevice, r, form))
	var m members
	if refused == nil {
		m, refused = s.beginDeviceLogin(r, form)
	}
	if refused != nil {
		refuse(x, refused)
		return
	}
	x.note(func(e *Event) { e.Committed = true })
	sendJSON(x, http.StatusOK, m.encode())
}

func (s *Sandbox) beginDeviceLogin(r *http.Request, form map[string]string) (members, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.authenticate(r, form); refused != nil {
		return nil, refused
	}
	if refused := s.provider.checkScope(form["scope"]); refused != nil {
		return nil, refused
	}
	now, c := time.Now(), s.config
	deviceCode := opaque(32)
	d := &deviceLogin{
		userCode: userCode(), scope: form["scope"],
		expires: now.Add(c.DeviceLifetime), interval: c.DeviceInterval,
	}
	for key, old := range s.devices {
		if now.After(old.expires.Add(keptCode)) {
			delete(s.devices, key)
		}
	}
	s.devices[sha256.Sum256([]byte(deviceCode))] = d
	shown := d.userCode[:4] + "-" + d.userCode[4:]
	page := baseURL(r) + s.provider.paths.verify
	m := members{
		{"device_code", quote(deviceCode)},
		{"user_code", quote(shown)},
		{"verification_uri", quote(page)},
		{"verification_uri_complete", quote(page + "?user_code=" + url.QueryEscape(shown))},
		{"expires_in", strconv.FormatInt(int64(c.DeviceLifetime/time.Second), 10)},
		{"interval", strconv.FormatInt(int64((c.DeviceInterval+time.Second-1)/time.Second), 10)},
	}
	if c.DeviceInterval < 0 {
		d.interval = 5 * time.Second // RFC 8628 §3.2: what a client must assume
		m = m.drop("interval")
	}
	return m, nil
}

// userCode returns one of the letters that RFC 8628 §6.1 suggests.
func userCode() string {
	const alphabet = "BCDFGHJKLMNPQRSTVWXZ"
	b := random(8)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

// plainUserCode undoes what a person does to a user code.
func plainUserCode(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, strings.ToUpper(text))
}

// grantDevice is RFC 8628 §3.4 and §3.5: one poll.
func (s *Sandbox) grantDevice(tr *tokenRequest) (pair, *refusal) {
	code := tr.form["device_code"]
	if code == "" {
		return pair{}, invalidRequest("device_code is missing")
	}
	d := s.devices[sha256.Sum256([]byte(code))]
	if d == nil {
		return pair{}, invalidGrant("unknown device code")
	}
	refusedWith := func(code, description string) (pair, *refusal) {
		return pair{}, &refusal{http.StatusBadRequest, code, description}
	}
	now := time.Now()
	early := !d.polled.IsZero() && now.Before(d.polled.Add(d.interval))
	d.polled = now
	tr.event.Username = d.user
	switch {
	case d.used:
		return pair{}, invalidGrant("the device code was used before")
	case !now.Before(d.expires):
		return refusedWith("expired_token", "the device code has expired")
	case early:
		d.interval += slowDown
		return refusedWith("slow_down", "polled before the interval was over")
	case d.denied:
		return refusedWith("access_denied", "the user said no")
	case d.user == "":
		return refusedWith("authorization_pending", "nobody has entered the user code yet")
	}
	d.used = true
	d.family = s.newLogin(d.user, d.scope)
	return s.issueLogin(d.family, tr, ""), nil
}
