package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// manifest is one of container/kubernetes, and what of it is a pod.
type manifest struct {
	file string
	pod  corev1.PodSpec
}

// containers are all of the pod: those that run beside the application included.
func (m manifest) containers() []corev1.Container {
	return slices.Concat(m.pod.InitContainers, m.pod.Containers)
}

// isSidecar tells machnetd from applications.
func isSidecar(c corev1.Container) bool { return len(c.Command) > 0 && c.Command[0] == "machnetd" }

// manifests decodes all files into Kubernetes' own types; a field that they do not have, or that is there twice, is an error.
func (b *bench) manifests() ([]manifest, error) {
	files, err := filepath.Glob(filepath.Join(b.root, "container/kubernetes/*.yaml"))
	if err != nil || len(files) < 4 {
		return nil, fmt.Errorf("%d manifests (%v)", len(files), err)
	}
	var all []manifest
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, document := range strings.Split(string(text), "\n---\n") {
			pod, err := decode([]byte(document))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
			all = append(all, manifest{filepath.Base(file), pod})
		}
	}
	return all, nil
}

func decode(document []byte) (corev1.PodSpec, error) {
	var kind struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return corev1.PodSpec{}, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "apps/v1 DaemonSet":
		var set appsv1.DaemonSet
		err := strictly(document, &set)
		return set.Spec.Template.Spec, selects(err, set.Spec.Selector, set.Spec.Template.Labels)
	case "apps/v1 Deployment":
		var deployment appsv1.Deployment
		err := strictly(document, &deployment)
		return deployment.Spec.Template.Spec, selects(err, deployment.Spec.Selector, deployment.Spec.Template.Labels)
	case "v1 Pod":
		var pod corev1.Pod
		err := strictly(document, &pod)
		return pod.Spec, err
	}
	return corev1.PodSpec{}, fmt.Errorf("%s %s: not a kind that is looked at here", kind.APIVersion, kind.Kind)
}

// strictly decodes as the server does: names of fields are to be spelled as they are, in capitals too, which encoding/json does not ask for.
func strictly(document []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	wrong, err := json.UnmarshalStrict(text, into)
	return errors.Join(append(wrong, err)...)
}

// selects is what the server asks of a selector: it matches the template.
func selects(err error, selector *metav1.LabelSelector, labels map[string]string) error {
	if err != nil {
		return err
	}
	if selector == nil {
		return errors.New("there is no selector")
	}
	for name, value := range selector.MatchLabels {
		if labels[name] != value {
			return fmt.Errorf("the selector asks for %s=%s, the template has %q", name, value, labels[name])
		}
	}
	return nil
}

func decoded(b *bench) (string, error) {
	all, err := b.manifests()
	if err != nil {
		return "", err
	}
	// What is mounted is a volume of the pod.
	for _, m := range all {
		for _, c := range m.containers() {
			for _, mount := range c.VolumeMounts {
				if !slices.ContainsFunc(m.pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) {
					return "", fmt.Errorf("%s: %s mounts %s, which is no volume", m.file, c.Name, mount.Name)
				}
			}
		}
	}
	return fmt.Sprintf("%d of them", len(all)), nil
}

// guaranteed applies the kubelet's three rules for the QoS class Guaranteed: every container, also those that start first, has a limit of
// CPU and of memory; neither is zero; and what it requests is its limit, where it says so at all. For the static CPU manager CPUs are whole.
func guaranteed(b *bench) (string, error) {
	all, err := b.manifests()
	if err != nil {
		return "", err
	}
	for _, m := range all {
		for _, c := range m.containers() {
			for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, limited := c.Resources.Limits[resource]
				if !limited || limit.IsZero() {
					return "", fmt.Errorf("%s: %s has no limit of %s", m.file, c.Name, resource)
				}
			}
			for resource, request := range c.Resources.Requests {
				if limit := c.Resources.Limits[resource]; limit.Cmp(request) != 0 {
					return "", fmt.Errorf("%s: %s requests %s of %s, and its limit is %s", m.file, c.Name, &request, resource, &limit)
				}
			}
			if cpus := c.Resources.Limits.Cpu(); cpus.MilliValue()%1000 != 0 {
				return "", fmt.Errorf("%s: %s has %s CPUs: no whole number, and so none of its own", m.file, c.Name, cpus)
			}
			huge, given := c.Resources.Limits["hugepages-2Mi"]
			if wants := isSidecar(c) && strings.Contains(m.file, "vfio"); wants != given {
				return "", fmt.Errorf("%s: %s has huge pages: %v", m.file, c.Name, given)
			}
			if given && huge.Value()%(2<<20) != 0 {
				return "", fmt.Errorf("%s: %s has %s of huge pages of 2 MiB", m.file, c.Name, &huge)
			}
		}
	}
	return "", nil
}

func unprivileged(b *bench) (string, error) {
	all, err := b.manifests()
	if err != nil {
		return "", err
	}
	capabilities := map[string][]corev1.Capability{
		"daemonset.yaml": {"BPF", "IPC_LOCK", "NET_ADMIN", "NET_RAW"}, "sidecar.yaml": {"BPF", "IPC_LOCK", "NET_ADMIN", "NET_RAW"}, "daemonset-vfio.yaml": {"IPC_LOCK"},
	}
	yes := func(b *bool) bool { return b != nil && *b }
	for _, m := range all {
		if m.pod.HostPID || m.pod.HostIPC || m.pod.HostNetwork != (m.file == "daemonset.yaml") {
			return "", fmt.Errorf("%s: shares namespaces of the node that it need not share", m.file)
		}
		for _, c := range m.containers() {
			may := c.SecurityContext
			if may == nil || may.Capabilities == nil || yes(may.Privileged) || may.AllowPrivilegeEscalation == nil || *may.AllowPrivilegeEscalation || !yes(may.ReadOnlyRootFilesystem) {
				return "", fmt.Errorf("%s: %s may do more than it needs: %+v", m.file, c.Name, may)
			}
			var want []corev1.Capability
			if isSidecar(c) {
				want = capabilities[m.file]
			} else if root := m.pod.SecurityContext.RunAsNonRoot; !yes(root) && !yes(may.RunAsNonRoot) {
				return "", fmt.Errorf("%s: the application %s may be root", m.file, c.Name)
			}
			if !slices.Equal(may.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(may.Capabilities.Add, want) {
				return "", fmt.Errorf("%s: %s has the capabilities %v, want %v", m.file, c.Name, may.Capabilities, want)
			}
		}
	}
	return "", nil
}

func folderAlone(b *bench) (string, error) {
	all, err := b.manifests()
	if err != nil {
		return "", err
	}
	applications := 0
	for _, m := range all {
		for _, c := range m.containers() {
			if isSidecar(c) {
				continue
			}
			applications++
			if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].SubPath != "" || c.VolumeMounts[0].MountPath != "/run/machnet" || !c.VolumeMounts[0].ReadOnly {
				return "", fmt.Errorf("%s: %s mounts %+v", m.file, c.Name, c.VolumeMounts)
			}
			for _, volume := range m.pod.Volumes {
				if host := volume.HostPath; volume.Name == c.VolumeMounts[0].Name && host != nil && (host.Path != "/run/machnet" || *host.Type != corev1.HostPathDirectory) {
					return "", fmt.Errorf("%s: %s has %+v of the node", m.file, c.Name, host)
				}
			}
		}
	}
	if applications < 2 {
		return "", fmt.Errorf("%d applications", applications)
	}
	return "", nil
}

func probes(b *bench) (string, error) {
	all, err := b.manifests()
	if err != nil {
		return "", err
	}
	for _, m := range all {
		for _, c := range m.containers() {
			if !isSidecar(c) {
				continue
			}
			socket := c.Command[slices.Index(c.Command, "--socket")+1]
			for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
				if probe == nil || probe.Exec == nil || len(probe.Exec.Command) < 5 || !slices.Equal(probe.Exec.Command[:3], []string{"machnet", "ctl", "health"}) {
					return "", fmt.Errorf("%s: the %s probe is %+v", m.file, name, probe)
				}
				if ready := slices.Contains(probe.Exec.Command, "--ready"); ready != (name == "readiness") || !slices.Contains(probe.Exec.Command, socket) {
					return "", fmt.Errorf("%s: the %s probe asks %q", m.file, name, probe.Exec.Command)
				}
				// One that does not know the flags ends with 2; where nobody is there, with 1.
				args := append([]string{"-c", `"$0" "$@"; [ $? -eq 1 ]`, filepath.Join(b.root, "bin/machnet")}, probe.Exec.Command[1:]...)
				if _, err := b.run("sh", args...); err != nil {
					return "", fmt.Errorf("%s: the %s probe: %w", m.file, name, err)
				}
			}
		}
	}
	return "", nil
}
