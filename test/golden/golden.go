// Package golden compares what tests make with files under testdata, which -update rewrites.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Equal compares got with the file testdata/<name> of the test's package.
func Equal(t *testing.T, name string, got []byte) {
	t.Helper()
	File(t, filepath.Join("testdata", filepath.FromSlash(name)), got)
}

// File compares got with a file.
func File(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run with -update to make it")
	require.Equal(t, string(want), string(got), "%s; run with -update if this is meant", path)
}

// Section compares got with the part of a text that is between the lines <!-- begin NAME: … --> and
// <!-- end NAME -->. People write the rest of it.
func Section(t *testing.T, path, name, got string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), "<!-- begin "+name+":")
	require.True(t, ok, "%s: expected a section %s", path, name)
	comment, rest, ok := strings.Cut(rest, "-->\n")
	require.True(t, ok, "%s: expected the first line of section %s to end with -->", path, name)
	want, after, ok := strings.Cut(rest, "<!-- end "+name+" -->")
	require.True(t, ok, "%s: expected section %s to end", path, name)
	if *update {
		whole := before + "<!-- begin " + name + ":" + comment + "-->\n" + got + "<!-- end " + name + " -->" + after
		require.NoError(t, os.WriteFile(path, []byte(whole), 0o644))
		return
	}
	require.Equal(t, want, got, "%s, section %s; run with -update if this is meant", path, name)
}
