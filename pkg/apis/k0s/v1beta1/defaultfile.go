package v1beta1

import _ "embed"

var (
	//go:embed default.yaml
	defaultFile string
	//go:embed default-images.yaml
	defaultFileWithImages string
)

// DefaultFile returns a k0s.yaml that asks for the defaults, with comments. The
// container images, which change with each version of k0s, are left to the
// defaults unless they are asked for.
func DefaultFile(images bool) string {
	if images {
		return defaultFileWithImages
	}
	return defaultFile
}
