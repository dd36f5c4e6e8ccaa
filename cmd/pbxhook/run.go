package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/provider/acefone"
)

const (
	lockWait = 10 * time.Second
	grace    = 25 * time.Second
)

func runCommand() *cobra.Command {
	var files []string
	options := receiver.Options{LockWait: lockWait, Grace: grace, Networks: deliver.Networks{Loopback: true}}
	maxBodyBytes := resource.QuantityValue{Quantity: *resource.NewQuantity(receiver.DefaultMaxBodyBytes, resource.BinarySI)}
	cmd := &cobra.Command{
		Use:   "run -f FILE...",
		Short: "Run the receiver on this machine, from PBXWebhook and Secret manifests",
		Long: "Run the receiver on this machine, from the same PBXWebhook and Secret manifests that a cluster gets.\n" +
			"Targets may be on this machine. A target that is a Service is looked up as <name>.<namespace>.svc.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			judge, err := validation.New()
			if err != nil {
				return err
			}
			log.SetOutput(io.Discard) // net/http writes there what targets send unasked
			out := cmd.OutOrStdout()
			options.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			options.Watch, options.MaxBodyBytes = files, maxBodyBytes.Value()
			options.Load = loader(judge, files)
			options.Serving = func(address, addressTLS string, webhooks []*v1alpha1.PBXWebhook) {
				for _, w := range webhooks {
					printURL(out, address, addressTLS, w)
				}
			}
			return receiver.New(options).Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&files, "filename", "f", nil, "file or folder of manifests; may be given several times")
	flags.StringVar(&options.Listen, "listen", "127.0.0.1:8080", "address for PBXs")
	flags.StringVar(&options.ListenTLS, "listen-tls", "127.0.0.1:8443", "address for PBXs over TLS, for webhooks with receiver.tls")
	flags.StringVar(&options.Admin, "admin", "127.0.0.1:9091", "address of the admin API")
	flags.StringVar(&options.Metrics, "metrics", "127.0.0.1:9090", "address of /metrics, /healthz, /readyz and /statusz")
	flags.IntVar(&options.MaxConnections, "max-connections", receiver.DefaultMaxConnections, "how many connections of PBXs may be open, at most half of the process's descriptors")
	flags.Var(&maxBodyBytes, "max-body-bytes", "how many bytes of requests' bodies may be in flight")
	flags.StringVar(&options.DataDir, "data-dir", "pbxhook-data", "folder in which events are kept")
	if err := cmd.MarkFlagRequired("filename"); err != nil {
		panic(err) // the flag is named a few lines above
	}
	return cmd
}

// loader reads manifests as the API server would take them.
func loader(judge *validation.Validator, files []string) func() (*config.Manifests, error) {
	return func() (*config.Manifests, error) {
		manifests, err := config.Load(files, func(d config.Document) (*v1alpha1.PBXWebhook, error) { return admit(judge, d) })
		if err == nil && len(manifests.Webhooks) == 0 {
			err = fmt.Errorf("expected a PBXWebhook in %s, got none", strings.Join(files, ", "))
		}
		return manifests, err
	}
}

// admit judges one manifest and gives it its defaults.
func admit(judge *validation.Validator, d config.Document) (*v1alpha1.PBXWebhook, error) {
	object := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSONStrict(d.YAML)
	if err == nil {
		err = object.UnmarshalJSON(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read PBXWebhook: %w", d.File, config.ExplainYAML(err))
	}
	webhook, errs := judge.Create(context.Background(), object)
	if len(errs) > 0 {
		var words []string
		for _, finding := range judge.Explain(object, errs) {
			words = append(words, finding.String())
		}
		return nil, fmt.Errorf("%s: PBXWebhook %s: %s", d.File, object.GetName(), strings.Join(words, "; "))
	}
	return webhook, nil
}

// printURL says what to paste into the PBX. Acefone has one webhook a trigger.
func printURL(out io.Writer, address, addressTLS string, w *v1alpha1.PBXWebhook) {
	scheme := "http"
	if w.Spec.Receiver.TLS != nil && addressTLS != "" {
		scheme, address = "https", addressTLS
	}
	url := scheme + "://" + address + ingest.Prefix + filepath.ToSlash(filepath.Join(w.Namespace, w.Name))
	hint := ""
	if w.Spec.Provider == v1alpha1.Acefone {
		hint = "  (one a trigger: add /" + acefone.Triggers[0].Path + " and so on)"
	}
	_, _ = fmt.Fprintf(out, "%s %s/%s: paste into the PBX: %s%s\n", w.Spec.Provider, w.Namespace, w.Name, url, hint)
}
