package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// An authority is a CA in memory.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the key of a CA: %w", err)
	}
	template := certificateTemplate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("creating the certificate of a CA: %w", err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate of a CA: %w", err)
	}
	return &authority{certificate, key}, nil
}

func certificateTemplate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(random(16)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(365 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func (a *authority) pem() []byte { return encodeCertificate(a.certificate.Raw) }

func encodeCertificate(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// issue returns a certificate and its key, both in PEM.
func (a *authority) issue(template *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key: %w", err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("creating a certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a key: %w", err)
	}
	return encodeCertificate(raw), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// issueServer returns a certificate for the names of loopback.
func (a *authority) issueServer() (certPEM, keyPEM []byte, err error) {
	template := certificateTemplate("sandbox")
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(template)
}

// issueClient returns a certificate for the client of this name.
func (a *authority) issueClient(name string) (certPEM, keyPEM []byte, err error) {
	template := certificateTemplate(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(template)
}

// NewClientCertificate issues a certificate and registers it as the client's
// (RFC 8705 §2), in PEM. From then on the client authenticates by one of its
// certificates and nothing else. Earlier ones stay registered.
func (s *Sandbox) NewClientCertificate() (certPEM, keyPEM []byte, err error) {
	certPEM, keyPEM, err = NewForeignCertificate(s.settings().ClientID)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.certificates.register(certPEM); err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, nil
}

// NewForeignCertificate issues a client certificate of a CA of its own, which
// no sandbox knows, in PEM; name is its subject's common name.
func NewForeignCertificate(name string) (certPEM, keyPEM []byte, err error) {
	ca, err := newAuthority("sandbox client CA")
	if err != nil {
		return nil, nil, err
	}
	return ca.issueClient(name)
}

// registeredCertificates are what the client may authenticate with. Its
// owner's lock guards it.
type registeredCertificates struct {
	fingerprints map[digest]bool // RFC 8705 §2.2
	roots        *x509.CertPool  // RFC 8705 §2.1; nil: none
}

func (rc *registeredCertificates) wanted() bool {
	return len(rc.fingerprints) > 0 || rc.roots != nil
}

// register adds the certificates of a PEM text: a CA for those that it
// issues, any other for itself.
func (rc *registeredCertificates) register(text []byte) error {
	found := false
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("parsing a client certificate: %w", err)
		}
		found = true
		if certificate.IsCA {
			if rc.roots == nil {
				rc.roots = x509.NewCertPool()
			}
			rc.roots.AddCert(certificate)
			continue
		}
		if rc.fingerprints == nil {
			rc.fingerprints = map[digest]bool{}
		}
		rc.fingerprints[sha256.Sum256(certificate.Raw)] = true
	}
	if !found {
		return errors.New("parsing a client certificate: no PEM certificate")
	}
	return nil
}

// match says whether a chain is the client's: registered itself, or of a
// registered CA and in the client's name. The handshake has proved the key.
func (rc *registeredCertificates) match(chain []*x509.Certificate, client string) bool {
	if len(chain) == 0 {
		return false
	}
	leaf := chain[0]
	now := time.Now()
	if rc.fingerprints[sha256.Sum256(leaf.Raw)] {
		return !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
	}
	if rc.roots == nil || leaf.Subject.CommonName != client {
		return false
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: rc.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

// authority returns the CA that issues the sandbox's own certificate.
func (s *Sandbox) authority() (*authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ca == nil {
		ca, err := newAuthority("sandbox CA")
		if err != nil {
			return nil, err
		}
		s.ca = ca
	}
	return s.ca, nil
}

func (s *Sandbox) wantsCertificate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificates.wanted()
}
