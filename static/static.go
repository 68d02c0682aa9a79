// Package static carries the files that are part of the product and are not
// code, embedded as they are in this folder.
package static

import "embed"

// Manifests holds our own stacks: one directory below manifests/ per stack,
// with *.yaml files that are Go text/templates. internal/manifests renders
// and applies them.
//
//go:embed manifests
var Manifests embed.FS
