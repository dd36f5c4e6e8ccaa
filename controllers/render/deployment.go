package render

import (
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

const (
	gracePeriod = 30    // seconds; the receiver's own --grace is less
	nonRoot     = 65532 // user and group of the image

	configFolder = "/etc/pbxhook"
	dataFolder   = "/var/lib/pbxhook"
)

var (
	defaultClaim    = resource.MustParse("2Gi")
	defaultRequests = corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("10m"),
		corev1.ResourceMemory: resource.MustParse("32Mi"),
	}
)

// Receiver is how receivers run in this cluster, whatever the webhook.
type Receiver struct {
	Image string
	// DenyNetworks and AllowNetworks say where targets may be, separated by commas.
	DenyNetworks, AllowNetworks string
	// LeaveUser leaves the user and group to the cluster: OpenShift gives each namespace its own.
	LeaveUser bool
	// Telemetry are OpenTelemetry's environment variables, as NAME=value, in order.
	Telemetry []string
}

// Deployment runs the receiver. Its pod template does not depend on the configuration that
// receivers reload: a changed target, password or certificate starts no pod.
func Deployment(w *v1alpha1.PBXWebhook, receiver Receiver, replicas int32) (*appsv1ac.DeploymentApplyConfiguration, error) {
	pod, err := podTemplate(w, receiver)
	if err != nil {
		return nil, err
	}
	return appsv1ac.Deployment(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(appsv1ac.DeploymentSpec().
			WithReplicas(replicas).
			WithRevisionHistoryLimit(3).
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(Selector(w))).
			WithStrategy(appsv1ac.DeploymentStrategy().
				WithType(appsv1.RollingUpdateDeploymentStrategyType).
				WithRollingUpdate(appsv1ac.RollingUpdateDeployment().
					WithMaxSurge(intstr.FromInt32(1)).WithMaxUnavailable(intstr.FromInt32(maxUnavailable(w))))).
			WithTemplate(pod)), nil
}

// maxUnavailable is one for an embedded journal: the new pod is not ready before it has the journal's lock,
// for which it waits beside the old one, which goes on accepting until it lets go. So the gap is as small
// as the hand-over.
func maxUnavailable(w *v1alpha1.PBXWebhook) int32 {
	if w.Spec.Journal.NATS != nil {
		return 0
	}
	return 1
}

func podTemplate(w *v1alpha1.PBXWebhook, receiver Receiver) (*corev1ac.PodTemplateSpecApplyConfiguration, error) {
	security := corev1ac.PodSecurityContext().
		WithRunAsNonRoot(true).
		WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch).
		WithSeccompProfile(corev1ac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))
	if !receiver.LeaveUser {
		security.WithRunAsUser(nonRoot).WithRunAsGroup(nonRoot).WithFSGroup(nonRoot)
	}
	spec := corev1ac.PodSpec().
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(gracePeriod).
		WithSecurityContext(security).
		WithContainers(container(w, receiver)).
		WithVolumes(corev1ac.Volume().WithName("config").
			WithSecret(corev1ac.SecretVolumeSource().WithSecretName(Name(w.Name)).WithDefaultMode(0o440)), dataVolume(w))

	template := corev1ac.PodTemplateSpec().WithSpec(spec)
	if pod := w.Spec.Receiver.Pod; pod != nil {
		if err := placePod(template, pod); err != nil {
			return nil, err
		}
	}
	return template.WithLabels(Labels(w)), nil
}

func environment(variables []string) []*corev1ac.EnvVarApplyConfiguration {
	var all []*corev1ac.EnvVarApplyConfiguration
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		all = append(all, corev1ac.EnvVar().WithName(name).WithValue(value))
	}
	return all
}

func container(w *v1alpha1.PBXWebhook, receiver Receiver) *corev1ac.ContainerApplyConfiguration {
	probe := func(path string) *corev1ac.ProbeApplyConfiguration {
		return corev1ac.Probe().WithHTTPGet(corev1ac.HTTPGetAction().WithPath(path).WithPort(intstr.FromString("metrics")))
	}
	port := func(name string, port int32) *corev1ac.ContainerPortApplyConfiguration {
		return corev1ac.ContainerPort().WithName(name).WithContainerPort(port).WithProtocol(corev1.ProtocolTCP)
	}
	args := []string{"--config=" + configFolder + "/" + ManifestKey, "--data-dir=" + dataFolder}
	if Volatile(w) {
		args = append(args, "--drain-first") // what is not delivered goes with the pod
	}
	if receiver.DenyNetworks != "" {
		args = append(args, "--deny-networks="+receiver.DenyNetworks)
	}
	if receiver.AllowNetworks != "" {
		args = append(args, "--allow-networks="+receiver.AllowNetworks)
	}
	return corev1ac.Container().
		WithEnv(environment(receiver.Telemetry)...).
		WithName("receiver").
		WithImage(receiver.Image).
		WithCommand("/receiver").
		WithArgs(args...).
		WithPorts(port("webhooks", webhooksPort), port("metrics", metricsPort)).
		WithResources(resources(w.Spec.Receiver.Resources)).
		WithReadinessProbe(probe("/readyz").WithPeriodSeconds(2).WithFailureThreshold(2)).
		WithLivenessProbe(probe("/healthz").WithPeriodSeconds(10).WithTimeoutSeconds(5)).
		WithSecurityContext(corev1ac.SecurityContext().
			WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).WithRunAsNonRoot(true).
			WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(
			corev1ac.VolumeMount().WithName("config").WithMountPath(configFolder).WithReadOnly(true),
			corev1ac.VolumeMount().WithName("data").WithMountPath(dataFolder))
}

func dataVolume(w *v1alpha1.PBXWebhook) *corev1ac.VolumeApplyConfiguration {
	volume := corev1ac.Volume().WithName("data")
	if NeedsClaim(w) {
		return volume.WithPersistentVolumeClaim(corev1ac.PersistentVolumeClaimVolumeSource().WithClaimName(Name(w.Name)))
	}
	return volume.WithEmptyDir(corev1ac.EmptyDirVolumeSource())
}

func resources(r *v1alpha1.Resources) *corev1ac.ResourceRequirementsApplyConfiguration {
	requirements := corev1ac.ResourceRequirements().WithRequests(defaultRequests)
	if r == nil {
		return requirements
	}
	if r.Requests != nil {
		requirements.WithRequests(quantities(r.Requests))
	}
	if r.Limits != nil {
		requirements.WithLimits(quantities(r.Limits))
	}
	return requirements
}

func quantities(l *v1alpha1.ResourceList) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, quantity := range map[corev1.ResourceName]*resource.Quantity{
		corev1.ResourceCPU: l.CPU, corev1.ResourceMemory: l.Memory, corev1.ResourceEphemeralStorage: l.EphemeralStorage,
	} {
		if quantity != nil {
			list[name] = *quantity
		}
	}
	return list
}

// placePod copies what spec.receiver.pod says; its types have core/v1's fields and convert by JSON.
func placePod(template *corev1ac.PodTemplateSpecApplyConfiguration, pod *v1alpha1.Pod) error {
	for name, value := range pod.Labels {
		template.WithLabels(map[string]string{name: string(value)})
	}
	for name, value := range pod.Annotations {
		template.WithAnnotations(map[string]string{name: string(value)})
	}
	for name, value := range pod.NodeSelector {
		template.Spec.WithNodeSelector(map[string]string{name: string(value)})
	}
	if pod.PriorityClassName != "" {
		template.Spec.WithPriorityClassName(pod.PriorityClassName)
	}
	for _, secret := range pod.ImagePullSecrets {
		template.Spec.WithImagePullSecrets(corev1ac.LocalObjectReference().WithName(secret.Name))
	}
	data, err := json.Marshal(map[string]any{
		"tolerations": pod.Tolerations, "affinity": pod.Affinity, "topologySpreadConstraints": pod.TopologySpreadConstraints,
	})
	if err != nil {
		return fmt.Errorf("write spec.receiver.pod: %w", err)
	}
	if err := json.Unmarshal(data, template.Spec); err != nil {
		return fmt.Errorf("read spec.receiver.pod: %w", err)
	}
	return nil
}
