package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
)

// programs are the files of those that are not on every machine.
type programs struct{ receiver, bento, nats, stream string }

// processes are a system's.
type processes []*proc.Process

func (all processes) stop() {
	for _, p := range all {
		p.Stop()
	}
}

func (all processes) cpu() (total time.Duration) {
	for _, p := range all {
		total += p.CPU()
	}
	return total
}

func (all processes) mib(field string) (total float64) {
	for _, p := range all {
		total += p.MiB(field)
	}
	return total
}

// system is what stands between the client and the target.
type system struct {
	name string
	// start starts it in a folder of its own, and says where events go. What it started is there also with
	// an error.
	start func(ctx context.Context, folder, target string) (url string, all processes, err error)
}

func systems(p programs) []system {
	return []system{
		{rigAlone, func(_ context.Context, _, target string) (string, processes, error) { return target, nil, nil }},
		{nginxProxy, startNginx},
		{pbxhook, func(ctx context.Context, folder, target string) (string, processes, error) {
			return startPbxhook(ctx, p.receiver, folder, setup{targets: []string{target}})
		}},
		{bentoNATS, func(ctx context.Context, folder, target string) (string, processes, error) {
			return startBento(ctx, p, folder, target, false)
		}},
		{bentoNATSSync, func(ctx context.Context, folder, target string) (string, processes, error) {
			return startBento(ctx, p, folder, target, true)
		}},
	}
}

const (
	rigAlone      = "direct"
	nginxProxy    = "nginx-proxy"
	pbxhook       = "pbxhook"
	bentoNATS     = "bento-nats"
	bentoNATSSync = "bento-nats-sync"
)

// startNginx is a reverse proxy that stores nothing, with connections kept at both sides.
func startNginx(ctx context.Context, folder, target string) (string, processes, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		return "", nil, errors.New("nginx is not installed: apt-get install nginx-light")
	}
	address, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	server, path, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
	conf := fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  keepalive_requests 10000000; keepalive_timeout 1h;
  upstream target { server %[2]s; keepalive 128; keepalive_requests 10000000; }
  server { listen %[3]s; location / { proxy_pass http://target/%[4]s; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
`, folder, server, address, path)
	file := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return "", nil, fmt.Errorf("write nginx's configuration: %w", err)
	}
	process, err := proc.Start(ctx, filepath.Join(folder, "nginx.log"), program, "-p", folder, "-c", file, "-e", filepath.Join(folder, "error.log"))
	if err != nil {
		return "", nil, err
	}
	return "http://" + address + "/", processes{process}, listening(ctx, address, process)
}

// setup is what a receiver is told to do.
type setup struct {
	targets    []string
	webhooks   int    // 0: one
	console    string // address of the console; empty: it has none
	unlogged   bool   // it keeps no delivery log
	nats       string // URL of a NATS server that keeps its journal; empty: it is embedded
	processors int    // that it may use; 0: all
}

// manifest has authentication and a filter expression on.
func (s setup) manifest() string {
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Secret\nmetadata: {name: pbx, namespace: default}\nstringData: {username: pbx, password: secret}\n")
	for i := range max(s.webhooks, 1) {
		fmt.Fprintf(&text, `---
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: %s, namespace: default}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  filter: {expression: event.call.talkSeconds > 10}
  journal: %s
  targets:
`, webhookName(i), s.journal())
		for n, target := range s.targets {
			fmt.Fprintf(&text, "  - {name: %s, url: %q, concurrency: 64}\n", targetName(n), target)
		}
	}
	return text.String()
}

func (s setup) journal() string {
	if s.nats == "" {
		return "{embedded: {maxBytes: 8Gi}}"
	}
	return fmt.Sprintf("{nats: {url: %q, replicas: 1, maxBytes: 8Gi}}", s.nats)
}

func webhookName(i int) string { return fmt.Sprintf("webhook-%d", i) }
func targetName(i int) string  { return fmt.Sprintf("target-%d", i) }

// startPbxhook starts the receiver as it runs in a pod: with metrics on, and its journals on the disk.
func startPbxhook(ctx context.Context, program, folder string, s setup) (string, processes, error) {
	address, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	metrics, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	file := filepath.Join(folder, "manifest.yaml")
	if err := os.WriteFile(file, []byte(s.manifest()), 0o600); err != nil {
		return "", nil, fmt.Errorf("write the manifest: %w", err)
	}
	args := []string{"--config", file, "--data-dir", dataDir(folder), "--listen", address, "--metrics", metrics, "--admin", s.console,
		"--allow-networks", "127.0.0.0/8", "--linger", "0s", fmt.Sprintf("--no-delivery-log=%t", s.unlogged)}
	if s.processors > 0 {
		program, args = "env", append([]string{fmt.Sprintf("GOMAXPROCS=%d", s.processors), program}, args...)
	}
	process, err := proc.Start(ctx, filepath.Join(folder, "receiver.log"), program, args...)
	if err != nil {
		return "", nil, err
	}
	return "http://pbx:secret@" + address + "/hooks/default/" + webhookName(0), processes{process}, listening(ctx, address, process)
}

func dataDir(folder string) string { return filepath.Join(folder, "data") }

// startBento starts NATS with JetStream on the disk, a bento that puts events into it and answers when they
// are acknowledged, and one that takes them out. With sync, NATS acknowledges what is on the disk, as pbxhook does.
func startBento(ctx context.Context, p programs, folder, target string, sync bool) (url string, all processes, err error) {
	var addresses [2]string
	for i := range addresses {
		if addresses[i], err = loopback.Find(); err != nil {
			return "", nil, err
		}
	}
	in, broker := addresses[0], addresses[1]
	host, port, err := net.SplitHostPort(broker)
	if err != nil {
		return "", nil, fmt.Errorf("read an address: %w", err)
	}
	start := func(name, program string, args ...string) (err error) {
		process, err := proc.Start(ctx, filepath.Join(folder, name+".log"), program, args...)
		if err == nil {
			all = append(all, process)
		}
		return err
	}
	storage := fmt.Sprintf("store_dir: %q", filepath.Join(folder, "js"))
	if sync {
		storage += ", sync_interval: always"
	}
	settings := filepath.Join(folder, "nats.conf")
	if err := os.WriteFile(settings, []byte("jetstream {"+storage+"}\n"), 0o600); err != nil {
		return "", nil, fmt.Errorf("write NATS' configuration: %w", err)
	}
	if err := start("nats", p.nats, "-a", host, "-p", port, "-c", settings); err != nil {
		return "", all, err
	}
	if err := listening(ctx, broker, all[0]); err != nil {
		return "", all, err
	}
	if text, err := exec.CommandContext(ctx, p.stream, "nats://"+broker).CombinedOutput(); err != nil {
		return "", all, fmt.Errorf("make the stream: %w: %s", err, text)
	}
	for name, conf := range map[string]string{
		"in": fmt.Sprintf(`http: {enabled: false}
logger: {level: ERROR}
input: {http_server: {address: %q, path: /, allowed_verbs: [POST], sync_response: {status: "202"}}}
output: {nats_jetstream: {urls: ["nats://%s"], subject: events, max_in_flight: 1024}}
`, in, broker),
		"out": fmt.Sprintf(`http: {enabled: false}
logger: {level: ERROR}
input: {nats_jetstream: {urls: ["nats://%s"], subject: events, durable: out, deliver: all, max_ack_pending: 1024}}
output: {kept_http: {url: %q, max_in_flight: 64}}
`, broker, target),
	} {
		file := filepath.Join(folder, name+".yaml")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return "", all, fmt.Errorf("write bento's configuration: %w", err)
		}
		if err := start(name, p.bento, "-c", file); err != nil {
			return "", all, err
		}
	}
	if err := listening(ctx, in, all[0]); err != nil {
		return "", all, err
	}
	return "http://" + in + "/", all, answering(ctx, in)
}

// answering waits until a system answers to a GET with anything but 503.
func answering(ctx context.Context, address string) error {
	for {
		response, err := http.Get("http://" + address + "/")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode != http.StatusServiceUnavailable {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// listening waits until a system takes connections.
func listening(ctx context.Context, address string, process *proc.Process) error {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-process.Done():
			log, _ := os.ReadFile(process.Log)
			return fmt.Errorf("the system ended: %s", log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
