package controllers_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/test/certs"
	"github.com/pbxhook/pbxhook/test/testenv"
)

const child = "callcenter-receiver"

// exposed brings a webhook, exposed as asked, to where a receiver runs.
func (w *world) exposed(change func(*v1alpha1.PBXWebhook)) {
	w.t.Helper()
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	w.webhook("callcenter", change)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.follow("callcenter")
	w.pod("callcenter", ready(true))
}

// url waits for the webhook's address.
func (w *world) url(want string) {
	w.t.Helper()
	got := &v1alpha1.PBXWebhook{}
	require.Eventually(w.t, func() bool {
		w.get(got, "callcenter")
		return got.Status.Address != nil && got.Status.Address.URL == want
	}, patience, 50*time.Millisecond, "expected the address %s, last status %v", want, &got.Status)
}

// unexpose takes the exposure back, and waits until the child that it was goes.
func (w *world) unexpose(object client.Object) {
	w.t.Helper()
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, "callcenter")
	webhook.Spec.Expose = nil
	w.replaceSpec(webhook)
	require.Eventually(w.t, func() bool {
		return apierrors.IsNotFound(w.client.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: child}, object))
	}, patience, 50*time.Millisecond)
}

func (w *world) path() string { return "/hooks/" + w.namespace + "/callcenter" }

func TestNotExposed(t *testing.T) {
	w := newWorld(t)
	w.exposed(nil)
	w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionFalse, v1alpha1.ReasonNotRequested)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.url("http://" + child + "." + w.namespace + ".svc" + w.path())
}

func TestExposedByLoadBalancer(t *testing.T) {
	for name, tc := range map[string]struct {
		ingress corev1.LoadBalancerIngress
		want    string
	}{
		"address":  {corev1.LoadBalancerIngress{IP: "198.51.100.7"}, "http://198.51.100.7"},
		"IPv6":     {corev1.LoadBalancerIngress{IP: "2001:db8::7"}, "http://[2001:db8::7]"},
		"hostname": {corev1.LoadBalancerIngress{Hostname: "lb.example.com", IP: "198.51.100.7"}, "http://lb.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.exposed(func(p *v1alpha1.PBXWebhook) {
				p.Spec.Expose = &v1alpha1.Expose{Service: &v1alpha1.ExposeService{Type: "LoadBalancer", Annotations: map[string]v1alpha1.AnnotationValue{"a.example.com/b": "c"}}}
			})
			got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonAddressPending)
			require.Nil(t, got.Status.Address, "there is nothing to paste into the PBX yet")
			service := &corev1.Service{}
			w.get(service, child)
			require.Equal(t, "c", service.Annotations["a.example.com/b"])
			for _, port := range service.Spec.Ports {
				require.NotEqual(t, "metrics", port.Name, "metrics are not for the outside")
			}
			service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{tc.ingress}
			w.replaceStatus(service)
			w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
			w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
			w.url(tc.want + w.path())
		})
	}
}

func TestExposedByNodePort(t *testing.T) {
	w := newWorld(t)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Expose = &v1alpha1.Expose{Service: &v1alpha1.ExposeService{Type: "NodePort"}}
	})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	service := &corev1.Service{}
	w.get(service, child)
	require.Equal(t, corev1.ServiceExternalTrafficPolicyLocal, service.Spec.ExternalTrafficPolicy, "the sender's address is kept")
	port := service.Spec.Ports[0].NodePort
	require.NotZero(t, port)
	w.url("http://192.0.2.1:" + strconv.Itoa(int(port)) + w.path())

	t.Run("and taken back", func(t *testing.T) {
		webhook := &v1alpha1.PBXWebhook{}
		w.get(webhook, "callcenter")
		webhook.Spec.Expose = nil
		w.replaceSpec(webhook)
		w.url("http://" + child + "." + w.namespace + ".svc" + w.path())
		w.get(service, child)
		require.Equal(t, corev1.ServiceTypeClusterIP, service.Spec.Type)
		require.Zero(t, service.Spec.Ports[0].NodePort)
		require.Empty(t, service.Spec.ExternalTrafficPolicy)
	})
}

func TestExposedByIngress(t *testing.T) {
	w := newWorld(t)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Expose = &v1alpha1.Expose{Ingress: &v1alpha1.ExposeIngress{
			ClassName: "nginx", Host: "pbx.example.com", TLSSecretName: "pbx-tls", Annotations: map[string]v1alpha1.AnnotationValue{"cert-manager.io/cluster-issuer": "le"},
		}}
	})
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionExposed).Message, "Secret pbx-tls does not exist")
	w.secret("pbx-tls", map[string]string{"tls.crt": "any", "tls.key": "any"}) // the Ingress controller reads it
	w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionUnknown, v1alpha1.ReasonAddressPending)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.url("https://pbx.example.com" + w.path())
	ingress := &networkingv1.Ingress{}
	w.get(ingress, child)
	require.Equal(t, "le", ingress.Annotations["cert-manager.io/cluster-issuer"])
	ingress.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "198.51.100.7"}}
	w.replaceStatus(ingress)
	w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)

	t.Run("what is not wanted any more goes", func(t *testing.T) {
		w.unexpose(ingress)
	})
}

// TestForeignIngressStays: an Ingress of the same name that is not the webhook's is neither taken over nor
// deleted.
func TestForeignIngressStays(t *testing.T) {
	w := newWorld(t)
	foreign := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: child},
		Spec:       networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "x", Port: networkingv1.ServiceBackendPort{Number: 1}}}},
	}
	require.NoError(t, w.client.Create(t.Context(), foreign))
	version := foreign.ResourceVersion
	w.exposed(nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, "callcenter")
	webhook.Spec.Expose = &v1alpha1.Expose{Ingress: &v1alpha1.ExposeIngress{Host: "pbx.example.com"}}
	w.replaceSpec(webhook)
	w.eventually("callcenter", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonForeignObject)
	w.get(foreign, child)
	require.Equal(t, version, foreign.ResourceVersion)

	secret := &corev1.Secret{}
	w.get(secret, "pbx")
	secret.StringData = map[string]string{"token": "rotated"}
	require.NoError(t, w.client.Update(t.Context(), secret))
	require.Eventually(t, func() bool {
		pods := &corev1.PodList{}
		require.NoError(t, w.client.List(t.Context(), pods, client.InNamespace(w.namespace)))
		return strings.Contains(w.values("callcenter"), "rotated") && pods.Items[0].Annotations[render.AnnotationConfig] == w.hash("callcenter")
	}, patience, 50*time.Millisecond, "the receivers are told all the same")
}

// TestVoIPstudioNeedsHTTPS: it sends to https addresses alone.
func TestVoIPstudioNeedsHTTPS(t *testing.T) {
	w := newWorld(t)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Provider = v1alpha1.VoIPstudio
		p.Spec.Expose = &v1alpha1.Expose{Service: &v1alpha1.ExposeService{Type: "NodePort"}}
	})
	w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionFalse, v1alpha1.ReasonHTTPSRequired)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)

	crt, key := certs.SelfSigned(t, "pbx.example.com")
	w.secret("tls", map[string]string{"tls.crt": crt, "tls.key": key})
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, "callcenter")
	webhook.Spec.Receiver.TLS = &v1alpha1.ReceiverTLS{SecretRef: v1alpha1.SecretReference{Name: "tls"}}
	w.replaceSpec(webhook)
	w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
}

func TestReceiverTLS(t *testing.T) {
	w := newWorld(t)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Receiver.TLS = &v1alpha1.ReceiverTLS{SecretRef: v1alpha1.SecretReference{Name: "tls"}}
	})
	got := w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionExposed).Message, "nothing is taken over https")
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)

	crt, key := certs.SelfSigned(t, "pbx.example.com")
	_, another := certs.SelfSigned(t, "pbx.example.com")
	secret := w.secret("tls", map[string]string{"tls.crt": crt, "tls.key": another})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInvalidValue)
	secret.StringData = map[string]string{"tls.key": key}
	require.NoError(t, w.client.Update(t.Context(), secret))
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.url("https://" + child + "." + w.namespace + ".svc" + w.path())
	service := &corev1.Service{}
	w.get(service, child)
	require.Len(t, service.Spec.Ports, 3)

	require.NoError(t, w.client.Delete(t.Context(), secret))
	got = w.eventually("callcenter", v1alpha1.ConditionExposed, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionExposed).Message, "the last good certificate stays in use")
	require.Contains(t, w.values("callcenter"), key)
}

// gatewayAPI installs Gateway API in the API server, for as long as the test runs.
func gatewayAPI(t *testing.T) {
	t.Helper()
	install(t, testenv.GatewayAPI(t))
}

// install installs CustomResourceDefinitions in the API server, for as long as the test runs.
func install(t *testing.T, path string) {
	t.Helper()
	options := envtest.CRDInstallOptions{Paths: []string{path}, ErrorIfPathMissing: true, MaxTime: 2 * time.Minute}
	crds, err := envtest.InstallCRDs(testenv.Config, options)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, envtest.UninstallCRDs(testenv.Config, options))
		api, err := clientset.NewForConfig(testenv.Config)
		require.NoError(t, err)
		for _, crd := range crds {
			require.Eventually(t, func() bool {
				_, err := api.ApiextensionsV1().CustomResourceDefinitions().Get(context.Background(), crd.Name, metav1.GetOptions{})
				return apierrors.IsNotFound(err)
			}, 6*patience, 50*time.Millisecond, "%s should be gone", crd.Name)
		}
	})
}

func discover(t *testing.T) controllers.APIs {
	t.Helper()
	c, err := discovery.NewDiscoveryClientForConfig(testenv.Operator)
	require.NoError(t, err)
	apis, err := controllers.DiscoverAPIs(c)
	require.NoError(t, err)
	return apis
}

// TestGateway: first there is no Gateway API, then it is installed.
func TestGateway(t *testing.T) {
	t.Run("is not installed", func(child *testing.T) { testGatewayAPIIsNotInstalled(child, func() { gatewayAPI(t) }) })
	t.Run("leads to the receiver", testExposedByGateway)
}

func testGatewayAPIIsNotInstalled(t *testing.T, install func()) {
	w := newWorld(t)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Expose = &v1alpha1.Expose{Gateway: &v1alpha1.ExposeGateway{ParentRefs: []v1alpha1.ParentReference{{Name: "public"}}}}
	})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonAPINotInstalled)

	c, err := discovery.NewDiscoveryClientForConfig(testenv.Operator)
	require.NoError(t, err)
	watch := controllers.APIWatch{Client: c, Known: discover(t), Every: 50 * time.Millisecond}
	ended := make(chan error, 1)
	go func() { ended <- watch.Start(t.Context()) }()
	select {
	case err := <-ended:
		require.Fail(t, "it ended although nothing changed", err)
	case <-time.After(300 * time.Millisecond):
	}
	install()
	require.ErrorIs(t, <-ended, controllers.ErrAPIsChanged)
	require.True(t, discover(t).Gateway)
}

func testExposedByGateway(t *testing.T) {
	w := newWorld(t)
	w.apis = discover(t)
	require.True(t, w.apis.Gateway)
	w.exposed(func(p *v1alpha1.PBXWebhook) {
		p.Spec.Provider = v1alpha1.Acefone
		p.Spec.TimeZone = "Asia/Kolkata"
		p.Spec.Events = []string{"CallMissed"}
		p.Spec.Expose = &v1alpha1.Expose{Gateway: &v1alpha1.ExposeGateway{
			ParentRefs: []v1alpha1.ParentReference{{Name: "public"}}, Hostnames: []string{"pbx.example.com"},
		}}
	})
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonGatewayNotReady)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady).Message, "Gateway "+w.namespace+"/public does not exist")
	require.Nil(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionStalled), "it heals by itself")

	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "public"},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "any", Listeners: []gatewayv1.Listener{
			{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType},
			{Name: "https", Port: 8443, Protocol: gatewayv1.HTTPSProtocolType, TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "cert"}}}},
		}},
	}
	require.NoError(t, w.client.Create(t.Context(), gateway))
	route := &gatewayv1.HTTPRoute{}
	w.get(route, child)
	accept := func(status metav1.ConditionStatus, reason string) {
		condition := func(kind gatewayv1.RouteConditionType) metav1.Condition {
			return metav1.Condition{Type: string(kind), Status: status, Reason: reason, ObservedGeneration: route.Generation, LastTransitionTime: metav1.Now()}
		}
		route.Status.Parents = []gatewayv1.RouteParentStatus{{
			ParentRef: gatewayv1.ParentReference{Name: "public"}, ControllerName: "example.com/controller",
			Conditions: []metav1.Condition{condition(gatewayv1.RouteConditionAccepted), condition(gatewayv1.RouteConditionResolvedRefs)},
		}}
		w.replaceStatus(route)
	}
	accept(metav1.ConditionFalse, "NotAllowedByListeners")
	require.Eventually(t, func() bool {
		w.get(got, "callcenter")
		return strings.Contains(meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionExposed).Message, "NotAllowedByListeners")
	}, patience, 50*time.Millisecond)
	accept(metav1.ConditionTrue, "Accepted")
	got = w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Equal(t, "https://pbx.example.com:8443"+w.path(), got.Status.Address.URL)
	require.Equal(t, []v1alpha1.Endpoint{{Event: "CallMissed", URL: "https://pbx.example.com:8443" + w.path() + "/call-missed"}}, got.Status.Endpoints)

	w.unexpose(route)
}
