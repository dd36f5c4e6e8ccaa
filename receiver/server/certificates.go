package server

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
)

// Certificates are those that the receiver shows. They are replaced while it serves.
type Certificates struct {
	all atomic.Pointer[[]*tls.Certificate]
}

// Put replaces them, for the connections that follow.
func (c *Certificates) Put(all []*tls.Certificate) { c.all.Store(&all) }

// Any reports whether there is one.
func (c *Certificates) Any() bool {
	all := c.all.Load()
	return all != nil && len(*all) > 0
}

// config returns how TLS is spoken with them.
func (c *Certificates) config() *tls.Config {
	return &tls.Config{GetCertificate: c.choose, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}

// choose returns the certificate for the name that the PBX asks for, else the first.
func (c *Certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !c.Any() {
		return nil, errors.New("no webhook has a certificate")
	}
	all := *c.all.Load()
	for _, certificate := range all {
		if hello.SupportsCertificate(certificate) == nil {
			return certificate, nil
		}
	}
	return all[0], nil
}
