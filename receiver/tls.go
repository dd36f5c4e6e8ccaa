package receiver

import (
	"crypto/tls"
	"fmt"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/server"
)

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

// certificatesOf returns the certificates of webhooks, one each with receiver.tls.
func certificatesOf(plans []*plan) (all []*tls.Certificate) {
	for _, p := range plans {
		if p.certificate != nil {
			all = append(all, p.certificate)
		}
	}
	return all
}

// listenTLS serves PBXs over https, once a webhook has a certificate.
func (r *Receiver) listenTLS() (err error) {
	if r.tls != nil || !r.certificates.Any() || r.options.ListenTLS == "" {
		return nil
	}
	r.tls, err = server.Listen(server.Options{Name: "webhooks over TLS", Address: r.options.ListenTLS, Handler: r.ingest, Certificates: &r.certificates, Limits: r.limits, Log: r.log})
	return err
}
