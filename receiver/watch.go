package receiver

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pbxhook/pbxhook/receiver/config"
)

// settleTime is how long a change is left to settle: the kubelet swaps a mounted Secret by several
// renames, an editor writes a file in several steps.
const settleTime = 50 * time.Millisecond

// rescan is how often the configuration is read although no change was seen: some file systems tell
// of none.
const rescan = time.Minute

// watch reads the configuration again when its files change, until ctx ends.
func (r *Receiver) watch(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	defer func() { _ = watcher.Close() }() // nothing is lost with it
	for _, path := range r.options.Watch {
		// the folder too: a mounted Secret, and what editors write, replace the file
		for _, watched := range []string{path, filepath.Dir(path)} {
			if err := watcher.Add(watched); err != nil {
				return fmt.Errorf("watch %s: %w", watched, err)
			}
		}
	}
	timer := time.NewTimer(settleTime) // for what was changed after it was read and before it was watched
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case change := <-watcher.Events:
			if r.concerns(change.Name) {
				timer.Reset(settleTime)
			}
			continue
		case err := <-watcher.Errors:
			r.log.Warn("a change of the configuration may have been missed", "error", err)
		case <-timer.C:
		}
		if len(r.options.Watch) > 0 {
			if err := r.reload(ctx); err != nil {
				return err
			}
			if err := r.listenTLS(); err != nil {
				r.log.Error("https is not served", "error", err) // tried again with the next reading
			}
		}
		timer.Reset(r.pause())
	}
}

// pause is until the configuration is read again without a change: one that was refused may be good soon, such as
// when what it names can be reached.
func (r *Receiver) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused != nil {
		return rescan / 12
	}
	return rescan
}

// concerns is whether a change in a watched folder is one of the configuration, and not of a file that
// merely lies beside it.
func (r *Receiver) concerns(changed string) bool {
	changed = filepath.Clean(changed)
	if filepath.Base(changed) == "..data" { // what the kubelet swaps
		return true
	}
	for _, path := range r.options.Watch {
		path = filepath.Clean(path)
		if changed == path || (filepath.Dir(changed) == path && config.IsManifest(changed)) {
			return true
		}
	}
	return false
}
