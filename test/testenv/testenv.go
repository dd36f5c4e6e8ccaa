// Package testenv starts a real API server and etcd for tests, with PBXWebhook's
// CustomResourceDefinition installed.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"
)

// Config reaches the API server of this test binary, and Operator does so with the rights alone that
// config/rbac gives the operator. They are set while Main runs tests.
var Config, Operator *rest.Config

// Main starts the API server, runs the tests of a package, and stops it. Call it from TestMain.
func Main(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "KUBEBUILDER_ASSETS is not set: run `make test`, or export KUBEBUILDER_ASSETS=$(hack/envtest)")
		return 1
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(Root(), "config", "crd")},
		ErrorIfCRDPathMissing: true,
	}
	// policies that rewrite objects, as Kyverno or a mesh would
	environment.ControlPlane.GetAPIServer().Configure().
		Append("feature-gates", "MutatingAdmissionPolicy=true").
		Append("runtime-config", "admissionregistration.k8s.io/v1beta1=true")
	config, err := environment.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the API server:", err)
		return 1
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
			code = 1
		}
	}()
	Config = config
	operator, err := AddOperator(environment)
	if err != nil {
		fmt.Fprintln(os.Stderr, "give the operator its rights:", err)
		return 1
	}
	Operator = operator.Config()
	return m.Run()
}

// AddOperator adds a user with the ClusterRole that users install. The Role beside it is for the Lease.
func AddOperator(environment *envtest.Environment) (*envtest.AuthenticatedUser, error) {
	const name = "pbxhook-operator"
	user, err := environment.AddUser(envtest.User{Name: name}, nil)
	if err != nil {
		return nil, fmt.Errorf("add the user: %w", err)
	}
	clientset, err := kubernetes.NewForConfig(environment.Config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	role, err := OperatorRole()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	if _, err := clientset.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("make the role: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if _, err := clientset.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("bind the role: %w", err)
	}
	return user, nil
}

// OperatorRole is the ClusterRole of config/rbac.
func OperatorRole() (*rbacv1.ClusterRole, error) {
	data, err := os.ReadFile(filepath.Join(Root(), "config", "rbac", "role.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the operator's role: %w", err)
	}
	for _, document := range strings.Split(string(data), "\n---\n") {
		role := &rbacv1.ClusterRole{}
		if err := yaml.Unmarshal([]byte(document), role); err != nil {
			return nil, fmt.Errorf("read the operator's role: %w", err)
		}
		if role.Kind == "ClusterRole" {
			return role, nil
		}
	}
	return nil, errors.New("expected a ClusterRole in config/rbac/role.yaml, got none")
}

// GatewayAPI is the folder with the CustomResourceDefinitions of Gateway API, in its module.
func GatewayAPI(t *testing.T) string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	list.Dir = Root()
	folder, err := list.Output()
	require.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(folder)), "config", "crd", "standard")
}

// Root is the folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}
