package main

import (
	"errors"
	"fmt"
)

// Bounds are what a run may not exceed.
type Bounds struct {
	// WritesPerNewBesideChildren: one status until the Deployment exists, one when it is available. Where the
	// machine is busy with more, one webhook in ten may be looked at in between, and told in three.
	WritesPerNewBesideChildren float64
	WritesPerRestart           float64
	Conflicts                  int
	// RSSMiB is for up to 500 webhooks, and RSSMiBPerMore for each one more.
	RSSMiB, RSSMiBPerMore float64
}

// The first three are promises, but for that tenth. Memory is half as much again as in the run of 2026-11-22 on two cores: 65 MiB
// with 60 webhooks, 95 MiB with 500.
var bounds = Bounds{
	WritesPerNewBesideChildren: 2.1,
	WritesPerRestart:           0,
	Conflicts:                  0,
	RSSMiB:                     140,
	RSSMiBPerMore:              0.1,
}

// within says which bounds a run exceeds.
func (r *Result) within(b Bounds) error {
	var errs []error
	exceeds := func(what string, got, most float64) {
		if got > most {
			errs = append(errs, fmt.Errorf("%s: expected at most %g, got %g", what, most, got))
		}
	}
	exceeds("writesPerNew", r.WritesPerNew, float64(r.ChildrenPerWebhook)+b.WritesPerNewBesideChildren)
	exceeds("writesPerRestart", r.WritesPerRestart, b.WritesPerRestart)
	exceeds("conflicts", float64(r.Conflicts), float64(b.Conflicts))
	exceeds("rssMiB", r.RSSMiB, b.RSSMiB+b.RSSMiBPerMore*max(0, float64(r.Webhooks-500)))
	return errors.Join(errs...)
}
