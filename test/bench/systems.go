package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
)

// system is what stands between the client and the target.
type system struct {
	name string
	// start starts it in a folder of its own, and says where events go; process is nil for none.
	start func(ctx context.Context, folder, target string) (url string, process *proc.Process, err error)
}

func systems(pbxhook string) []system {
	return []system{
		{"direct", func(_ context.Context, _, target string) (string, *proc.Process, error) { return target, nil, nil }},
		{"nginx-proxy", startNginx},
		{"pbxhook", func(ctx context.Context, folder, target string) (string, *proc.Process, error) {
			return startPbxhook(ctx, pbxhook, folder, target)
		}},
	}
}

// startNginx is a reverse proxy that stores nothing, with connections kept at both sides.
func startNginx(ctx context.Context, folder, target string) (string, *proc.Process, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		return "", nil, errors.New("nginx is not installed: apt-get install nginx-light")
	}
	address, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	conf := fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  keepalive_requests 10000000; keepalive_timeout 1h;
  upstream target { server %[2]s; keepalive 128; keepalive_requests 10000000; }
  server { listen %[3]s; location / { proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
`, folder, strings.TrimPrefix(target, "http://"), address)
	path := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return "", nil, fmt.Errorf("write nginx's configuration: %w", err)
	}
	process, err := proc.Start(ctx, filepath.Join(folder, "nginx.log"), program, "-p", folder, "-c", path, "-e", filepath.Join(folder, "error.log"))
	if err != nil {
		return "", nil, err
	}
	return "http://" + address + "/", process, listening(ctx, address, process)
}

// startPbxhook has authentication, a filter expression and metrics on, and the journal on disk.
func startPbxhook(ctx context.Context, program, folder, target string) (string, *proc.Process, error) {
	address, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	metrics, err := loopback.Find()
	if err != nil {
		return "", nil, err
	}
	manifest := filepath.Join(folder, "webhook.yaml")
	text := fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: pbx, namespace: default}
stringData: {username: pbx, password: secret}
---
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: bench, namespace: default}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  filter: {expression: event.call.talkSeconds > 10}
  targets: [{name: target, url: %q, concurrency: 64}]
`, target)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		return "", nil, fmt.Errorf("write the manifest: %w", err)
	}
	process, err := proc.Start(ctx, filepath.Join(folder, "pbxhook.log"), program,
		"run", "-f", manifest, "--data-dir", filepath.Join(folder, "data"), "--listen", address, "--metrics", metrics, "--admin", "")
	if err != nil {
		return "", nil, err
	}
	return "http://pbx:secret@" + address + "/hooks/default/bench", process, listening(ctx, address, process)
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
