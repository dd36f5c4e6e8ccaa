// Makes the stream of the benchmark: on disk, as JetStream keeps streams.
// Usage: stream URL
package main

import (
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
		os.Exit(1)
	}
}

func run(url string) error {
	conn, err := nats.Connect(url, nats.RetryOnFailedConnect(true))
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		return fmt.Errorf("speak to JetStream: %w", err)
	}
	_, err = js.AddStream(&nats.StreamConfig{Name: "EVENTS", Subjects: []string{"events"}, Storage: nats.FileStorage})
	return err
}
