// Package crd carries the CustomResourceDefinition of PBXWebhook, as the API server gets it, so
// that programs without a cluster can judge manifests by the same schema and rules.
package crd

import _ "embed"

// YAML is the generated CustomResourceDefinition.
//
//go:embed pbxhook.io_pbxwebhooks.yaml
var YAML []byte
