package render_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/test/golden"
)

const minimal = `
metadata: {name: callcenter, namespace: crm, uid: 1fce8de8}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  targets: [{name: crm, url: "https://crm.example.com/hooks"}]
  journal: {embedded: {storage: {claim: {size: 2Gi}}}}
`

const full = `
metadata: {name: callcenter, namespace: crm, uid: 1fce8de8}
spec:
  provider: Simotel
  enabled: false
  credentials: {secretRef: {name: pbx}, tokenName: X-API-Key}
  targets:
  - name: crm
    service: {name: crm, port: 8080, path: /hooks}
    auth: {basic: {secretRef: {name: crm}}}
    headers: [{name: X-Key, valueFrom: {secretKeyRef: {name: crm, key: api-key}}}]
    tls: {ca: {configMapKeyRef: {name: ca, key: ca.crt}}}
  journal: {deletionPolicy: Delete, embedded: {storage: {claim: {storageClassName: fast, size: 5Gi}}}}
  receiver:
    resources: {limits: {memory: 128Mi}, requests: {cpu: 50m}}
    pod:
      labels: {team: voice}
      annotations: {example.com/a: b}
      nodeSelector: {kubernetes.io/os: linux}
      tolerations: [{key: voice, operator: Exists, effect: NoSchedule}]
      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]}}}
      priorityClassName: high
      imagePullSecrets: [{name: pull}]
`

func parse(t *testing.T, text string) *v1alpha1.PBXWebhook {
	t.Helper()
	w := &v1alpha1.PBXWebhook{}
	require.NoError(t, sigsyaml.UnmarshalStrict([]byte(text), w))
	return w
}

func values() render.Values {
	return render.Values{
		"Secret/pbx":   {"username": []byte("u"), "password": []byte("p"), "unrelated": []byte("left out")},
		"Secret/crm":   {"username": []byte("cu"), "password": []byte("cp"), "api-key": []byte("k")},
		"ConfigMap/ca": {"ca.crt": []byte("PEM")},
		"Secret/tls":   {"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("left out")},
	}
}

// with is the minimal webhook with more in its spec.
func with(lines string) string { return strings.TrimRight(minimal, "\n") + "\n" + lines + "\n" }

func TestObjects(t *testing.T) {
	for name, tc := range map[string]struct {
		webhook  string
		receiver render.Receiver
	}{
		"minimal":      {webhook: minimal},
		"full":         {webhook: full},
		"traced":       {webhook: minimal, receiver: render.Receiver{Telemetry: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", "OTEL_TRACES_SAMPLER=traceidratio"}}},
		"emptydir":     {webhook: strings.Replace(minimal, "claim: {size: 2Gi}", "emptyDir: {}", 1)},
		"loadbalancer": {webhook: with("  expose: {service: {type: LoadBalancer, loadBalancerClass: example.com/lb, externalTrafficPolicy: Local, annotations: {external-dns.alpha.kubernetes.io/hostname: pbx.example.com}}}")},
		"nodeport-tls": {webhook: with("  expose: {service: {type: NodePort, externalTrafficPolicy: Cluster}}\n  receiver: {tls: {secretRef: {name: tls}}}")},
		"tls":          {webhook: with("  receiver: {tls: {secretRef: {name: tls}}}")},
		"ingress":      {webhook: with("  expose: {ingress: {className: nginx, host: pbx.example.com, tlsSecretName: pbx-tls, annotations: {cert-manager.io/cluster-issuer: le}}}")},
		"gateway":      {webhook: with("  expose: {gateway: {parentRefs: [{name: public, namespace: gateways, sectionName: https}], hostnames: [pbx.example.com]}}")},
		"replicas":     {webhook: strings.Replace(minimal, "journal: {embedded: {storage: {claim: {size: 2Gi}}}}", "journal: {nats: {url: \"nats://nats:4222\"}}\n  receiver: {replicas: 3}", 1)},
		"platform":     {webhook: minimal, receiver: render.Receiver{LeaveUser: true, DenyNetworks: "10.0.0.0/8", AllowNetworks: "10.1.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := parse(t, tc.webhook)
			tc.receiver.Image = "pbxhook:dev"
			deployment, err := render.Deployment(w, tc.receiver, render.Replicas(w), render.NoVolume)
			require.NoError(t, err)
			manifest, err := render.Manifest(w, values())
			require.NoError(t, err)
			golden.Equal(t, name+"/manifest.yaml", manifest)
			objects := map[string]any{
				"deployment": deployment, "service": render.Service(w), "secret": render.Secret(w, []byte("see manifest.yaml")),
				"claim": render.Claim(w), "networkpolicy": render.NetworkPolicy(w, []string{"pbxhook-system", "monitoring"}),
				"disruptionbudget": render.DisruptionBudget(w), "ingress": render.Ingress(w), "httproute": render.HTTPRoute(w),
				"podmonitor": render.PodMonitor(w).Object,
			}
			for kind, object := range objects {
				if reflect.ValueOf(object).IsNil() {
					require.NoFileExists(t, filepath.Join("testdata", name, kind+".yaml"))
					continue
				}
				data, err := sigsyaml.Marshal(object)
				require.NoError(t, err)
				golden.Equal(t, name+"/"+kind+".yaml", data)
			}
		})
	}
}

// TestRequestsFollowLimits: a limit under the default request lowers that, since a request above its limit is invalid.
func TestRequestsFollowLimits(t *testing.T) {
	for name, tc := range map[string]struct{ resources, memory, cpu string }{
		"a memory limit under the default": {"{limits: {memory: 16Mi}}", "16Mi", "10m"},
		"a memory limit over the default":  {"{limits: {memory: 64Mi}}", "32Mi", "10m"},
		"a cpu limit under the default":    {"{limits: {cpu: 5m}}", "32Mi", "5m"},
	} {
		t.Run(name, func(t *testing.T) {
			w := parse(t, with("  receiver: {resources: "+tc.resources+"}"))
			deployment, err := render.Deployment(w, render.Receiver{Image: "a"}, 1, render.NoVolume)
			require.NoError(t, err)
			requests := *deployment.Spec.Template.Spec.Containers[0].Resources.Requests
			require.Equal(t, tc.memory, requests.Memory().String())
			require.Equal(t, tc.cpu, requests.Cpu().String())
		})
	}
}

// TestNobodyAsksWhoIsNotNamed: a rule without peers would let everyone in.
func TestNobodyAsksWhoIsNotNamed(t *testing.T) {
	policy := render.NetworkPolicy(parse(t, minimal), nil)
	require.Len(t, policy.Spec.Ingress, 1)
	require.Equal(t, int32(8080), policy.Spec.Ingress[0].Ports[0].Port.IntVal)
}

func TestManifestCarriesWhatIsReferredToAndNoMore(t *testing.T) {
	manifest, err := render.Manifest(parse(t, full), values())
	require.NoError(t, err)
	got, err := render.ReadValues(manifest)
	require.NoError(t, err)
	want := values()
	delete(want["Secret/pbx"], "unrelated")
	delete(want, "Secret/tls") // not referred to
	require.Equal(t, want, got)
}

// TestPodsDoNotRollForWhatIsReloaded: a pod template that changed would start a pod.
func TestPodsDoNotRollForWhatIsReloaded(t *testing.T) {
	before, err := render.Deployment(parse(t, minimal), render.Receiver{Image: "a"}, 1, render.NoVolume)
	require.NoError(t, err)
	w := parse(t, minimal)
	w.Spec.Targets[0].URL = "http://another"
	w.Spec.TimeZone = "Asia/Tehran"
	w.Spec.Credentials = v1alpha1.Credentials{Anonymous: &v1alpha1.Anonymous{}}
	after, err := render.Deployment(w, render.Receiver{Image: "a"}, 1, render.NoVolume)
	require.NoError(t, err)
	require.Equal(t, before.Spec.Template, after.Spec.Template)
}

// TestConfigurationDoesNotChangeForWhatThePodHas: nor the other way round.
func TestConfigurationDoesNotChangeForWhatThePodHas(t *testing.T) {
	before, err := render.Manifest(parse(t, minimal), values())
	require.NoError(t, err)
	w := parse(t, minimal)
	w.Spec.Enabled = ptr.To(false)
	w.Spec.Receiver.Resources = &v1alpha1.Resources{Limits: &v1alpha1.ResourceList{CPU: ptr.To(resource.MustParse("1"))}}
	w.Spec.Journal.Embedded.Storage.Claim.Size = ptr.To(resource.MustParse("9Gi"))
	after, err := render.Manifest(w, values())
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

// TestMemoryLimit: there is always one, at least as much as is asked for, and Go hears of four fifths of it.
func TestMemoryLimit(t *testing.T) {
	memory := func(text string) *v1alpha1.ResourceList {
		return &v1alpha1.ResourceList{Memory: ptr.To(resource.MustParse(text))}
	}
	for name, tc := range map[string]struct {
		resources   *v1alpha1.Resources
		limit, go80 string
	}{
		"none":              {nil, "512Mi", "429496728"},
		"of CPU alone":      {&v1alpha1.Resources{Limits: &v1alpha1.ResourceList{CPU: ptr.To(resource.MustParse("1"))}}, "512Mi", "429496728"},
		"its own":           {&v1alpha1.Resources{Limits: memory("1Gi")}, "1Gi", "858993456"},
		"a greater request": {&v1alpha1.Resources{Requests: memory("1Gi")}, "1Gi", "858993456"},
	} {
		t.Run(name, func(t *testing.T) {
			w := parse(t, minimal)
			w.Spec.Receiver.Resources = tc.resources
			d, err := render.Deployment(w, render.Receiver{Image: "a"}, 1, render.NoVolume)
			require.NoError(t, err)
			c := d.Spec.Template.Spec.Containers[0]
			limit := (*c.Resources.Limits)[corev1.ResourceMemory]
			require.Equal(t, tc.limit, limit.String())
			require.Equal(t, "GOMEMLIMIT", *c.Env[len(c.Env)-1].Name)
			require.Equal(t, tc.go80, *c.Env[len(c.Env)-1].Value)
		})
	}
}
