package controllers

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// blockedError is what the operator cannot do before something else changes. One that heals is resolved without an
// edit of the PBXWebhook or of an object in its way, and is not Stalled.
type blockedError struct {
	reason, message string
	heals           bool
}

func (e *blockedError) Error() string { return e.message }

// errReplacing says that an object of the same name is being deleted with an earlier webhook.
var errReplacing = errors.New("waiting for the objects of the deleted PBXWebhook of this name to go")

// transient is an error that the queue should try again; others wait for something else.
func transient(err error) error {
	var blocked *blockedError
	if errors.As(err, &blocked) || errors.Is(err, errReplacing) {
		return nil
	}
	return err
}

// refusal is an error of the API server as something that somebody must resolve; nil where it is none.
func refusal(err error, kind, name string) *blockedError {
	switch {
	case !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err):
		return nil
	case isQuota(err.Error()):
		return quotaExceeded(fmt.Sprintf("the %s %s", kind, name), err.Error())
	case lacksRight(err):
		return &blockedError{
			reason: v1alpha1.ReasonMissingRights, heals: true,
			message: fmt.Sprintf("the operator may not write the %s %s: give it the rights of config/rbac or of the chart (%s)", kind, name, steadyMessage(err.Error())),
		}
	}
	return &blockedError{reason: v1alpha1.ReasonApplyFailed, message: fmt.Sprintf("the API server rejected the %s %s: %s", kind, name, steadyMessage(err.Error()))}
}

// quotaExceeded is the same for a claim, a pod, or another object: the namespace has no room for it.
func quotaExceeded(what, message string) *blockedError {
	return &blockedError{
		reason: v1alpha1.ReasonQuotaExceeded, heals: true,
		message: fmt.Sprintf("%s does not fit into the namespace's quota: raise the ResourceQuota, or free some of it (%s)", what, steadyMessage(message)),
	}
}

func isQuota(message string) bool { return strings.Contains(message, "exceeded quota") }

// lacksRight reports whether the API server's authorization refused a request, and not its admission.
func lacksRight(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), `User "`) && strings.Contains(err.Error(), " cannot ")
}

// podName is how the API server names a pod that is made under a random name.
var podName = regexp.MustCompile(`pods? "[^"]*"`)

// steadyMessage is a message without the random names of pods, so that it is the same at each attempt, and bounded.
func steadyMessage(message string) string {
	message = podName.ReplaceAllString(message, "the pod")
	if len(message) > 1024 {
		message = strings.ToValidUTF8(message[:1024], "") + "…"
	}
	return message
}
