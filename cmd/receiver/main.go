// The receiver is what runs in the pods of a PBXWebhook: it takes the PBX's requests, keeps them and
// delivers them. The operator writes its configuration and its flags.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
	_ "time/tzdata" // the image has no zone files

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/pbxhook/pbxhook/api/networks"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/receiver/config"
)

func main() {
	tune()
	log.SetOutput(io.Discard) // net/http writes there what targets send unasked
	if err := command().Execute(); err != nil {
		slog.New(slog.NewJSONHandler(os.Stderr, nil)).Error("the receiver ended", "error", err)
		os.Exit(1)
	}
}

// tune sets what the runtime cannot know, unless the environment does. A processor more than there are is for
// the journal, which holds one while it waits for the disk.
func tune() {
	if os.Getenv("GOGC") == "" {
		tuneCollector()
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

func command() *cobra.Command {
	var path string
	var deny, allow []string
	options := receiver.Options{LockWait: -1}
	maxBodyBytes := resource.QuantityValue{Quantity: *resource.NewQuantity(receiver.DefaultMaxBodyBytes, resource.BinarySI)}
	cmd := &cobra.Command{
		Use:           "receiver",
		Short:         "Take a PBX's webhooks, keep them and deliver them",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) (err error) {
			if options.Networks.Deny, err = networks.Parse(deny); err != nil {
				return fmt.Errorf("--deny-networks: %w", err)
			}
			if options.Networks.Allow, err = networks.Parse(allow); err != nil {
				return fmt.Errorf("--allow-networks: %w", err)
			}
			options.MaxBodyBytes = maxBodyBytes.Value()
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			options.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
			options.Serving = func(string, string, []*v1alpha1.PBXWebhook) { letGo(options.Log) }
			options.Watch = []string{path}
			options.Load = func() (*config.Manifests, error) { return config.Load([]string{path}, nil) }
			return receiver.New(options).Run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.MaxConnections, "max-connections", receiver.DefaultMaxConnections, "how many connections of PBXs may be open, at most half of the process's descriptors; beyond them, those that sent nothing valid are closed, and others get 503")
	flags.Var(&maxBodyBytes, "max-body-bytes", "how many bytes of requests' bodies may be in flight; beyond them the answer is 503")
	flags.StringVar(&path, "config", "/etc/pbxhook/manifest.yaml", "file with the PBXWebhook and the values that it refers to")
	flags.StringVar(&options.DataDir, "data-dir", "/var/lib/pbxhook", "folder of the journals")
	flags.StringVar(&options.Listen, "listen", ":8080", "address for PBXs")
	flags.StringVar(&options.ListenTLS, "listen-tls", ":8443", "address for PBXs over TLS, where the webhook has receiver.tls")
	flags.StringVar(&options.Metrics, "metrics", ":9090", "address of /metrics, /healthz, /readyz and /statusz")
	flags.StringVar(&options.Admin, "admin", "127.0.0.1:9091", "address of the admin API")
	flags.DurationVar(&options.Linger, "linger", 2*time.Second, "how long requests are still taken after SIGTERM")
	flags.DurationVar(&options.Grace, "grace", 25*time.Second, "how long the end may take")
	flags.StringSliceVar(&deny, "deny-networks", nil, "networks that targets may not be in, beside loopback, link-local and multicast addresses")
	flags.StringSliceVar(&allow, "allow-networks", nil, "networks that targets may be in all the same")
	flags.BoolVar(&options.Unlogged, "no-delivery-log", false, "do not write down the attempts that the console shows")
	flags.BoolVar(&options.DrainFirst, "drain-first", false, "deliver what is pending before the end, as far as --grace allows")
	return cmd
}
