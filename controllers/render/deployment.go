package render

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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

	dataVolumeName = "data"
	drainFirst     = "--drain-first"
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
// former is the volume of an embedded journal before the one in NATS, as long as it is needed.
func Deployment(w *v1alpha1.PBXWebhook, receiver Receiver, replicas int32, former Volume) (*appsv1ac.DeploymentApplyConfiguration, error) {
	volume := former
	if w.Spec.Journal.NATS == nil {
		volume = volumeOf(w)
	}
	pod, err := podTemplate(w, receiver, volume)
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
					WithMaxSurge(intstr.FromInt32(1)).WithMaxUnavailable(intstr.FromInt32(maxUnavailable(w, volume))))).
			WithTemplate(pod)), nil
}

// Volume is what an embedded journal lies on.
type Volume string

// The volumes. A receiver whose journal is in NATS has none.
const (
	NoVolume       Volume = ""
	ClaimVolume    Volume = "claim"
	EmptyDirVolume Volume = "emptyDir"
)

func volumeOf(w *v1alpha1.PBXWebhook) Volume {
	if NeedsClaim(w) {
		return ClaimVolume
	}
	return EmptyDirVolume
}

// JournalVolume is what the embedded journal of a Deployment's receiver lies on.
func JournalVolume(d *appsv1.Deployment) Volume {
	pod := &d.Spec.Template.Spec
	if slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == dataVolumeName && v.PersistentVolumeClaim != nil }) {
		return ClaimVolume
	}
	if len(pod.Containers) > 0 && slices.Contains(pod.Containers[0].Args, drainFirst) {
		return EmptyDirVolume
	}
	return NoVolume
}

// maxUnavailable is one for an embedded journal: the new pod is not ready before it has the journal's lock,
// for which it waits beside the old one, which goes on accepting until it lets go. So the gap is as small
// as the hand-over. Receivers that have their journal in NATS stay until one with another is ready.
func maxUnavailable(w *v1alpha1.PBXWebhook, volume Volume) int32 {
	if volume == NoVolume || w.JournalBefore() != nil {
		return 0
	}
	return 1
}

func podTemplate(w *v1alpha1.PBXWebhook, receiver Receiver, volume Volume) (*corev1ac.PodTemplateSpecApplyConfiguration, error) {
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
		WithContainers(container(w, receiver, volume)).
		WithVolumes(corev1ac.Volume().WithName("config").
			WithSecret(corev1ac.SecretVolumeSource().WithSecretName(Name(w.Name)).WithDefaultMode(0o440)))
	if volume != NoVolume {
		spec.WithVolumes(dataVolume(w, volume))
	}

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

func container(w *v1alpha1.PBXWebhook, receiver Receiver, volume Volume) *corev1ac.ContainerApplyConfiguration {
	probe := func(path string) *corev1ac.ProbeApplyConfiguration {
		return corev1ac.Probe().WithHTTPGet(corev1ac.HTTPGetAction().WithPath(path).WithPort(intstr.FromString("metrics")))
	}
	port := func(name string, port int32) *corev1ac.ContainerPortApplyConfiguration {
		return corev1ac.ContainerPort().WithName(name).WithContainerPort(port).WithProtocol(corev1.ProtocolTCP)
	}
	mounts := []*corev1ac.VolumeMountApplyConfiguration{corev1ac.VolumeMount().WithName("config").WithMountPath(configFolder).WithReadOnly(true)}
	data := dataFolder
	if volume == NoVolume {
		data = "" // an embedded journal has no place here
	} else {
		mounts = append(mounts, corev1ac.VolumeMount().WithName(dataVolumeName).WithMountPath(dataFolder))
	}
	args := []string{"--config=" + configFolder + "/" + ManifestKey, "--data-dir=" + data}
	if volume == EmptyDirVolume {
		args = append(args, drainFirst) // what is not delivered goes with the pod
	}
	if receiver.DenyNetworks != "" {
		args = append(args, "--deny-networks="+receiver.DenyNetworks)
	}
	if receiver.AllowNetworks != "" {
		args = append(args, "--allow-networks="+receiver.AllowNetworks)
	}
	requirements := resources(w.Spec.Receiver.Resources)
	return corev1ac.Container().
		WithEnv(environment(append(slices.Clone(receiver.Telemetry), memoryLimit(requirements)...))...).
		WithName("receiver").
		WithImage(receiver.Image).
		WithCommand("/receiver").
		WithArgs(args...).
		WithPorts(port("webhooks", webhooksPort), port("metrics", metricsPort)).
		WithResources(requirements).
		WithReadinessProbe(probe("/readyz").WithPeriodSeconds(2).WithFailureThreshold(2)).
		WithLivenessProbe(probe("/healthz").WithPeriodSeconds(10).WithTimeoutSeconds(5)).
		WithSecurityContext(corev1ac.SecurityContext().
			WithAllowPrivilegeEscalation(false).WithReadOnlyRootFilesystem(true).WithRunAsNonRoot(true).
			WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(mounts...)
}

func dataVolume(w *v1alpha1.PBXWebhook, kind Volume) *corev1ac.VolumeApplyConfiguration {
	volume := corev1ac.Volume().WithName(dataVolumeName)
	if kind == ClaimVolume {
		return volume.WithPersistentVolumeClaim(corev1ac.PersistentVolumeClaimVolumeSource().WithClaimName(Name(w.Name)))
	}
	return volume.WithEmptyDir(corev1ac.EmptyDirVolumeSource())
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
