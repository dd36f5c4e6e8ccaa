// The operator's benchmark: a real API server and controller manager, N webhooks, and every mutating request
// of the operator counted at the API server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// Result is what a run found, and what dist/bench-operator.json holds.
type Result struct {
	Webhooks                int     `json:"webhooks"`
	ChildrenPerWebhook      int     `json:"childrenPerWebhook"`
	WritesPerNew            float64 `json:"writesPerNew"`
	WritesPerRestart        float64 `json:"writesPerRestart"`
	Conflicts               int     `json:"conflicts"`
	SecondsToAllDeployments float64 `json:"secondsToAllDeployments"`
	RSSMiB                  float64 `json:"rssMiB"` // at its highest, of both runs
}

// The whole run ends by itself.
const timeLimit = 20 * time.Minute

func main() {
	n := flag.Int("n", 500, "webhooks")
	operator := flag.String("operator", "bin/operator", "the operator's program")
	out := flag.String("out", "dist/bench-operator.json", "file for the result")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	if err := run(ctx, *n, *operator, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench-operator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, n int, operator, out string) (err error) {
	if n < 1 || n > maxWebhooks {
		return fmt.Errorf("-n: expected 1 to %d webhooks, got %d", maxWebhooks, n)
	}
	c, err := startCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	nodes := startNodes(ctx, c.client)
	defer nodes.stop()

	result, err := measure(ctx, c, n, operator)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	fmt.Printf("%s\n", data)
	if err := os.WriteFile(out, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return result.within(bounds)
}

func measure(ctx context.Context, c *cluster, n int, program string) (*Result, error) {
	operator, err := c.startOperator(ctx, program)
	if err != nil {
		return nil, err
	}
	defer operator.Stop()
	fmt.Printf("making %d webhooks\n", n)
	start := time.Now()
	if err := makeWebhooks(ctx, c.client, n); err != nil {
		return nil, err
	}
	result := &Result{Webhooks: n}
	if err := until(ctx, func() (bool, error) { return c.count(ctx, "deployments") >= n, nil }); err != nil {
		return nil, fmt.Errorf("wait for all Deployments: %w", err)
	}
	result.SecondsToAllDeployments = round(time.Since(start).Seconds())
	fmt.Printf("all Deployments after %.1f s\n", result.SecondsToAllDeployments)
	if err := until(ctx, func() (bool, error) { return c.ready(ctx) >= n, nil }); err != nil {
		return nil, fmt.Errorf("wait for all webhooks to be Ready: %w", err)
	}
	fmt.Printf("all Ready after %.1f s\n", time.Since(start).Seconds())
	writes, err := c.writesUntilQuiet(ctx, operator, 0)
	if err != nil {
		return nil, err
	}
	result.WritesPerNew, result.Conflicts = round(float64(writes.total)/float64(n)), writes.conflicts
	for _, kind := range childKinds {
		result.ChildrenPerWebhook += c.count(ctx, kind) / n
	}
	result.RSSMiB = operator.peakMiB()
	fmt.Printf("writes: %v\n", writes.byKind)

	operator.Stop()
	before := writes
	operator, err = c.startOperator(ctx, program)
	if err != nil {
		return nil, err
	}
	defer operator.Stop()
	if writes, err = c.writesUntilQuiet(ctx, operator, n); err != nil {
		return nil, err
	}
	result.WritesPerRestart = float64(writes.total-before.total) / float64(n)
	result.Conflicts = writes.conflicts
	result.RSSMiB = round(max(result.RSSMiB, operator.peakMiB()))
	return result, nil
}

const namespace = "default"

func makeWebhooks(ctx context.Context, c client.Client, n int) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pbx"}, StringData: map[string]string{"token": "t"}}
	if err := c.Create(ctx, secret); err != nil {
		return fmt.Errorf("make the PBX's Secret: %w", err)
	}
	for i := range n {
		webhook := &v1alpha1.PBXWebhook{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("bench-%04d", i)},
			Spec: v1alpha1.PBXWebhookSpec{
				Provider:    v1alpha1.Simotel,
				Credentials: v1alpha1.Credentials{SecretRef: &v1alpha1.SecretReference{Name: secret.Name}},
				Targets:     []v1alpha1.Target{{Name: "crm", URL: "https://crm.example.com/hooks"}},
			},
		}
		if err := c.Create(ctx, webhook); err != nil {
			return fmt.Errorf("make webhook %d: %w", i, err)
		}
	}
	return nil
}

// until asks again and again.
func until(ctx context.Context, done func() (bool, error)) error {
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func round(x float64) float64 { return math.Round(x*100) / 100 }
