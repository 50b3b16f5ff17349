package oauth

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

// This file puts into words what a check has seen.

// Advice says what to do about an error on the way to a server. ca is the line
// that names a private authority, proxy the one that names a proxy.
func Advice(err error, ca, proxy string) string {
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case noTLS(err):
		return "look for a mistake in the port; plain http is for this machine only, and is written so"
	case errors.As(err, &dns):
		return "look for a mistake in the name, and whether this machine can look it up: getent hosts " + brief(dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: look for a mistake in the name and the port, and whether the server runs; a firewall may answer so, too"
	case errors.As(err, &authority):
		return "if the server has a certificate of a private authority, name that: " + ca
	case errors.As(err, &name) && name.Certificate != nil:
		return "use a name that is in the certificate: " + certificateNames(name.Certificate)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "if this machine's time is right (see `date`), the server's operator has to renew the certificate"
	}
	return "look whether a firewall is in between; if the way there is by a proxy: " + proxy
}

// certificateNames are the first names in a certificate, in a form that is safe
// to show: they are the other side's text.
func certificateNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return brief(strings.Join(names[:min(len(names), 3)], ", "))
}

func brief(text string) string {
	const most = 100
	runes := []rune(strings.Map(printable, text))
	return string(runes[:min(len(runes), most)])
}

// WireError describes an error on the way to a server, without the URL and
// without bytes that the other side sent.
func WireError(err error) string {
	if noTLS(err) {
		return "it does not speak TLS there"
	}
	return wireError(err)
}

// noTLS reports the error of a server that answers a TLS handshake with
// something else.
func noTLS(err error) bool {
	var record tls.RecordHeaderError
	return errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// CheckCertificate judges the certificate that a server has shown, and that
// was accepted.
func CheckCertificate(host string, state *tls.ConnectionState, now time.Time) Finding {
	f := Finding{LevelOK, "certificate", host + ": " + tls.VersionName(state.Version), ""}
	if len(state.PeerCertificates) == 0 {
		return f
	}
	leaf := state.PeerCertificates[0]
	issuer := leaf.Issuer.CommonName
	if len(leaf.Issuer.Organization) > 0 {
		issuer = leaf.Issuer.Organization[0]
	}
	// Another one of the chain may end first.
	ends := leaf.NotAfter
	for _, chain := range state.VerifiedChains[:min(1, len(state.VerifiedChains))] {
		for _, c := range chain {
			if c.NotAfter.Before(ends) {
				ends = c.NotAfter
			}
		}
	}
	days := int(ends.Sub(now) / (24 * time.Hour))
	f.What += fmt.Sprintf(", certificate of %s by %s, good for %d days", certificateNames(leaf), cmp.Or(brief(issuer), "an unnamed authority"), days)
	if days < 30 {
		f.Level, f.Fix = LevelWarn, "make sure that somebody renews it before "+ends.UTC().Format(time.DateOnly)
	}
	return f
}

const (
	skewWarn = 30 * time.Second
	skewFail = 5 * time.Minute
)

// checkClock judges how far the server's clock is ahead of ours.
func checkClock(skew time.Duration) Finding {
	d := skew.Abs().Round(time.Second)
	direction := "behind"
	if skew < 0 {
		direction = "ahead of"
	}
	f := Finding{LevelOK, "clock", "this machine's clock agrees with the server's", ""}
	if d >= 2*time.Second {
		f.What = fmt.Sprintf("this machine's clock is %v %s the server's", d, direction)
	}
	switch {
	case d > skewFail:
		f.Level = LevelFail
	case d > skewWarn:
		f.Level = LevelWarn
	default:
		return f
	}
	f.Fix = "set this machine's clock: timedatectl set-ntp true; if it is right, tell the server's operator"
	return f
}
