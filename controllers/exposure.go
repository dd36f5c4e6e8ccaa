package controllers

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// exposure is where a PBX reaches the receiver, and why not.
type exposure struct {
	url             string // of the webhook; empty while there is none
	status          metav1.ConditionStatus
	reason, message string
	blocks          bool // nothing that a PBX sends to the URL arrives
}

func reached(url string) exposure {
	return exposure{url: url, status: metav1.ConditionTrue, reason: v1alpha1.ReasonSucceeded, message: "a PBX reaches the receiver at status.address"}
}

// pending is an exposure that somebody else, who is at work, makes complete.
func pending(reason, format string, args ...any) exposure {
	return exposure{status: metav1.ConditionFalse, reason: reason, message: fmt.Sprintf(format, args...), blocks: true}
}

// expose finds out where a PBX reaches the receiver.
func (r *Reconciler) expose(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (exposure, error) {
	found, err := r.wayIn(ctx, w, seen)
	if err != nil {
		return exposure{}, err
	}
	if c := seen.configuration.certificate; c != nil {
		found.status, found.reason, found.blocks = metav1.ConditionFalse, c.reason, true
		found.message = c.message + ": create or mend it; until then nothing is taken over https"
		if c.lastGood {
			found.message = c.message + ": create or mend it; the last good certificate stays in use"
		}
		return found, nil
	}
	if w.Spec.Provider == v1alpha1.VoIPstudio && strings.HasPrefix(found.url, schemeHTTP+":") {
		found.status, found.reason = metav1.ConditionFalse, v1alpha1.ReasonHTTPSRequired
		found.message = "VoIPstudio sends to https addresses alone, and this one is http: set spec.receiver.tls, or expose it by an Ingress or Gateway with TLS"
	}
	return found, nil
}

func (r *Reconciler) wayIn(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (exposure, error) {
	switch e := w.Spec.Expose; {
	case e != nil && e.Service != nil:
		return r.serviceAddress(ctx, w, seen.pods)
	case e != nil && e.Ingress != nil:
		return r.ingressAddress(ctx, w)
	case e != nil && e.Gateway != nil:
		return r.gatewayAddress(ctx, w, seen)
	}
	return exposure{
		url: urlOf(ownScheme(w), render.Name(w.Name)+"."+w.Namespace+".svc", 0, w), status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotRequested,
		message: "only what runs in the cluster reaches status.address: set spec.expose for a PBX outside",
	}, nil
}

// serviceAddress is that of the load balancer, or of the node that the receiver runs on: with
// externalTrafficPolicy Local no other one answers.
func (r *Reconciler) serviceAddress(ctx context.Context, w *v1alpha1.PBXWebhook, pods []corev1.Pod) (exposure, error) {
	service := &corev1.Service{}
	if err := r.Get(ctx, childKey(w), service); client.IgnoreNotFound(err) != nil {
		return exposure{}, fmt.Errorf("read the receiver's Service: %w", err)
	}
	scheme := ownScheme(w)
	if w.Spec.Expose.Service.Type == string(corev1.ServiceTypeLoadBalancer) {
		for _, in := range service.Status.LoadBalancer.Ingress {
			if host := cmp.Or(in.Hostname, in.IP); host != "" {
				return reached(urlOf(scheme, host, 0, w)), nil
			}
		}
		return pending(v1alpha1.ReasonAddressPending, "the Service has no load balancer yet: the cluster needs something that makes them, see its events"), nil
	}
	host := ""
	for i := range pods {
		if pods[i].DeletionTimestamp == nil && isReady(&pods[i]) {
			host = pods[i].Status.HostIP
		}
	}
	for _, port := range service.Spec.Ports {
		if host != "" && port.NodePort != 0 && port.Name != render.PortMetrics {
			return reached(urlOf(scheme, host, port.NodePort, w)), nil
		}
	}
	return pending(v1alpha1.ReasonAddressPending, "the receiver runs on no node yet"), nil
}

// ingressAddress is the host of the Ingress. Not every Ingress controller says that it serves one.
func (r *Reconciler) ingressAddress(ctx context.Context, w *v1alpha1.PBXWebhook) (exposure, error) {
	spec := w.Spec.Expose.Ingress
	scheme := schemeHTTP
	if spec.TLSSecretName != "" {
		scheme = schemeHTTPS
		secret := &metav1.PartialObjectMetadata{}
		secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		err := r.Get(ctx, types.NamespacedName{Namespace: w.Namespace, Name: spec.TLSSecretName}, secret)
		if apierrors.IsNotFound(err) {
			return pending(v1alpha1.ReasonSecretNotFound, "spec.expose.ingress.tlsSecretName: Secret %s does not exist in namespace %s: create it", spec.TLSSecretName, w.Namespace), nil
		}
		if err != nil {
			return exposure{}, fmt.Errorf("look up Secret %s: %w", spec.TLSSecretName, err)
		}
	}
	ingress := &networkingv1.Ingress{}
	if err := r.Get(ctx, childKey(w), ingress); client.IgnoreNotFound(err) != nil {
		return exposure{}, fmt.Errorf("read the receiver's Ingress: %w", err)
	}
	found := reached(urlOf(scheme, spec.Host, 0, w))
	if len(ingress.Status.LoadBalancer.Ingress) == 0 {
		found.status, found.reason = metav1.ConditionUnknown, v1alpha1.ReasonAddressPending
		found.message = "no Ingress controller has said that it serves the Ingress: see spec.expose.ingress.className"
	}
	return found, nil
}

// gatewayAddress is that of the first Gateway that takes the route.
func (r *Reconciler) gatewayAddress(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (exposure, error) {
	if !r.APIs.Gateway {
		return pending(v1alpha1.ReasonAPINotInstalled, "the cluster has no Gateway API (gateway.networking.k8s.io/v1): install it, and the operator uses it by itself"), nil
	}
	route := &gatewayv1.HTTPRoute{}
	if err := r.Get(ctx, childKey(w), route); client.IgnoreNotFound(err) != nil {
		return exposure{}, fmt.Errorf("read the receiver's HTTPRoute: %w", err)
	}
	var url string
	for _, parent := range w.Spec.Expose.Gateway.ParentRefs {
		if parent.Namespace == "" {
			parent.Namespace = w.Namespace
		}
		gateway := &gatewayv1.Gateway{}
		err := r.Live.Get(ctx, types.NamespacedName{Namespace: parent.Namespace, Name: parent.Name}, gateway)
		switch {
		case apierrors.IsNotFound(err):
			return pending(v1alpha1.ReasonGatewayNotReady, "Gateway %s/%s does not exist: create it, or mend spec.expose.gateway.parentRefs", parent.Namespace, parent.Name), nil
		case apierrors.IsForbidden(err):
			return pending(v1alpha1.ReasonGatewayNotReady, "the operator may not read Gateway %s/%s: allow it to get gateways there", parent.Namespace, parent.Name), nil
		case err != nil:
			return exposure{}, fmt.Errorf("read Gateway %s/%s: %w", parent.Namespace, parent.Name, err)
		}
		if why := notTaken(route, parent); why != "" || seen.written[kindOf(route)] {
			return pending(v1alpha1.ReasonGatewayNotReady, "Gateway %s/%s does not lead to the receiver: %s", parent.Namespace, parent.Name, cmp.Or(why, waitingForGateway)), nil
		}
		if url == "" {
			url = gatewayURL(gateway, parent.SectionName, w)
		}
	}
	if url == "" {
		return pending(v1alpha1.ReasonAddressPending, "the Gateway has no address yet"), nil
	}
	return reached(url), nil
}

const waitingForGateway = "no controller has looked at the route yet"

// notTaken says why a Gateway does not take the route; empty when it does.
func notTaken(route *gatewayv1.HTTPRoute, parent v1alpha1.ParentReference) string {
	for _, status := range route.Status.Parents {
		ref := status.ParentRef
		if string(ref.Name) != parent.Name || string(ptr.Deref(ref.Namespace, gatewayv1.Namespace(parent.Namespace))) != parent.Namespace || string(ptr.Deref(ref.SectionName, "")) != parent.SectionName {
			continue
		}
		for _, kind := range []gatewayv1.RouteConditionType{gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs} {
			c := meta.FindStatusCondition(status.Conditions, string(kind))
			if c == nil || c.ObservedGeneration < route.Generation {
				return waitingForGateway
			}
			if c.Status != metav1.ConditionTrue {
				return fmt.Sprintf("the route's condition %s is %s (%s)", kind, c.Status, c.Reason)
			}
		}
		return ""
	}
	return waitingForGateway
}

// gatewayURL is the webhook's address at a Gateway: https where it listens for that.
func gatewayURL(gateway *gatewayv1.Gateway, section string, w *v1alpha1.PBXWebhook) string {
	var best *gatewayv1.Listener
	for i := range gateway.Spec.Listeners {
		l := &gateway.Spec.Listeners[i]
		usable := l.Protocol == gatewayv1.HTTPProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType
		if !usable || (section != "" && string(l.Name) != section) {
			continue
		}
		if best == nil || l.Protocol == gatewayv1.HTTPSProtocolType && best.Protocol != gatewayv1.HTTPSProtocolType {
			best = l
		}
	}
	if best == nil {
		return ""
	}
	scheme := schemeHTTP
	if best.Protocol == gatewayv1.HTTPSProtocolType {
		scheme = schemeHTTPS
	}
	hosts := append(slices.Clone(w.Spec.Expose.Gateway.Hostnames), string(ptr.Deref(best.Hostname, "")))
	for _, address := range gateway.Status.Addresses {
		hosts = append(hosts, address.Value)
	}
	for _, host := range hosts {
		if host != "" && !strings.HasPrefix(host, "*") {
			return urlOf(scheme, host, best.Port, w)
		}
	}
	return ""
}

// ownScheme is that of the receiver itself.
func ownScheme(w *v1alpha1.PBXWebhook) string {
	if render.TLS(w) {
		return schemeHTTPS
	}
	return schemeHTTP
}

// urlOf is the webhook's address at a host. Port 0 is the scheme's own.
func urlOf(scheme, host string, port int32, w *v1alpha1.PBXWebhook) string {
	authority := host
	if strings.Contains(host, ":") {
		authority = "[" + host + "]"
	}
	if port != 0 && (scheme != schemeHTTP || port != 80) && (scheme != schemeHTTPS || port != 443) {
		authority = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	return scheme + "://" + authority + render.Path(w)
}

func childKey(w *v1alpha1.PBXWebhook) types.NamespacedName {
	return types.NamespacedName{Namespace: w.Namespace, Name: render.Name(w.Name)}
}
