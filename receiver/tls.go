package receiver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/config"
)

// certificates are those that the receiver shows, one a webhook with receiver.tls. They are replaced
// while it serves.
type certificates struct {
	all atomic.Pointer[[]*tls.Certificate]
}

// put replaces them, for the connections that follow.
func (c *certificates) put(plans []*plan) {
	var all []*tls.Certificate
	for _, p := range plans {
		if p.certificate != nil {
			all = append(all, p.certificate)
		}
	}
	c.all.Store(&all)
}

func (c *certificates) any() bool {
	all := c.all.Load()
	return all != nil && len(*all) > 0
}

// choose is the certificate for the name that the PBX asks for, else the first.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !c.any() {
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

// certificateFor is the certificate of receiver.tls, nil where none is asked for. One that is not there
// yet, or that cannot be used, is not shown: it heals by itself, and events that come over http are taken
// meanwhile.
func certificateFor(manifest *v1alpha1.PBXWebhook, values *config.Manifests) (*tls.Certificate, error) {
	if manifest.Spec.Receiver.TLS == nil {
		return nil, nil
	}
	name := manifest.Spec.Receiver.TLS.SecretRef.Name
	secret, _ := values.Values("Secret", manifest.Namespace, name)
	certificate, err := tls.X509KeyPair(secret[v1alpha1.KeyCertificate], secret[v1alpha1.KeyPrivateKey])
	if err != nil {
		return nil, fmt.Errorf("receiver.tls: Secret %s: %w", name, err)
	}
	return &certificate, nil
}

// listenTLS serves PBXs over https, once a webhook has a certificate.
func (r *Receiver) listenTLS() (err error) {
	if r.tls != nil || !r.certificates.any() || r.options.ListenTLS == "" {
		return nil
	}
	r.tls, err = r.listen("webhooks over TLS", r.options.ListenTLS, r.forPBXs(), &tls.Config{GetCertificate: r.certificates.choose, MinVersion: tls.VersionTLS12})
	return err
}
