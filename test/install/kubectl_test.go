package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/pbxhook/pbxhook/test/testenv"
)

// kubectl runs the one beside the API server, against it.
func kubectl(t *testing.T) func(stdin string, args ...string) (string, error) {
	t.Helper()
	c := testenv.Config
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, path))
	return func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), append([]string{"--kubeconfig=" + path}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// TestAppliedEitherWay: install.yaml by kubectl apply, and then, as docs/install.md says, with --server-side: there is
// no conflict, since kubectl takes over what it wrote itself and nothing of the operator's writes those objects.
func TestAppliedEitherWay(t *testing.T) {
	run := kubectl(t)
	installer, errs, err := tool("kustomize", "build", "config/default")
	require.NoError(t, err, errs)
	for _, args := range [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}, {"apply", "-f", "-"}, {"apply", "--server-side", "-f", "-"}} {
		out, err := run(installer, args...)
		require.NoError(t, err, "kubectl %v: %s", args, out)
	}
}
