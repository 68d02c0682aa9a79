package v1beta1

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ExtensionsSpec are installed into the cluster.
type ExtensionsSpec struct {
	// Helm installs charts.
	Helm HelmSpec `json:"helm"`
	// Storage has no effect: it once installed OpenEBS.
	Storage *StorageExtension `json:"storage,omitempty"`
}

// StorageExtension has no effect.
type StorageExtension struct {
	// Type has no effect.
	Type string `json:"type,omitempty" scope:"cluster" change:"none" gone:"k0s installs no storage" example:"external_storage"`
	// CreateDefaultStorageClass has no effect.
	CreateDefaultStorageClass bool `json:"create_default_storage_class,omitempty" scope:"cluster" change:"none" gone:"k0s installs no storage" example:"false"`
}

// HelmSpec installs charts.
type HelmSpec struct {
	// ConcurrencyLevel is how many charts are installed at a time.
	ConcurrencyLevel int `json:"concurrencyLevel" scope:"cluster" change:"restart" min:"1" later:"" example:"5"`
	// Repositories are where charts come from.
	Repositories []HelmRepository `json:"repositories,omitempty" scope:"cluster" change:"restart" later:""`
	// Charts are installed and kept as they are given here.
	Charts []HelmChart `json:"charts,omitempty" scope:"cluster" change:"restart" later:""`
}

// HelmRepository is where charts come from.
type HelmRepository struct {
	// Name that chartname begins with. Required.
	Name string `json:"name" scope:"cluster" change:"restart" example:"stable"`
	// URL of the repository. Required.
	URL string `json:"url" scope:"cluster" change:"restart" example:"https://charts.example.org"`
	// Insecure does without checking the repository's certificate.
	Insecure bool `json:"insecure,omitempty" scope:"cluster" change:"restart" example:"false"`
	// CAFile is the authority of the repository's certificate, as PEM.
	CAFile string `json:"caFile,omitempty" scope:"cluster" change:"restart" example:"/etc/k0s/charts-ca.crt"`
	// CertFile is the certificate k0s shows to the repository, as PEM.
	CertFile string `json:"certFile,omitempty" scope:"cluster" change:"restart" example:"/etc/k0s/charts.crt"`
	// KeyFile is its key, as PEM.
	KeyFile string `json:"keyfile,omitempty" scope:"cluster" change:"restart" example:"/etc/k0s/charts.key"`
	// Username for the repository.
	Username string `json:"username,omitempty" scope:"cluster" change:"restart" example:"reader"`
	// Password for the repository.
	Password string `json:"password,omitempty" scope:"cluster" change:"restart" example:"secret"`
}

// HelmChart is a chart to be installed.
type HelmChart struct {
	// Name of the release. Required.
	Name string `json:"name" scope:"cluster" change:"restart" example:"ingress"`
	// ChartName is repository/chart, an oci:// URL, or a file.
	ChartName string `json:"chartname,omitempty" scope:"cluster" change:"restart" example:"stable/ingress"`
	// Version of the chart; empty: the newest.
	Version string `json:"version,omitempty" scope:"cluster" change:"restart" example:"1.2.3"`
	// Values of the chart, as a string of YAML.
	Values string `json:"values,omitempty" scope:"cluster" change:"restart" example:"'{replicas: 2}'"`
	// Namespace of the release. Required.
	Namespace string `json:"namespace" scope:"cluster" change:"restart" example:"ingress"`
	// Timeout for an installation, such as 10m, or nanoseconds.
	Timeout HelmTimeout `json:"timeout,omitzero" scope:"cluster" change:"restart" example:"10m"`
	// ForceUpgrade replaces objects that cannot be changed.
	ForceUpgrade *bool `json:"forceUpgrade,omitempty" scope:"cluster" change:"restart" default:"true" example:"false"`
	// Order has no effect.
	Order int `json:"order,omitempty" scope:"cluster" change:"restart" example:"1"`
}

// HelmTimeout is a duration, which may be written as a number of nanoseconds.
type HelmTimeout struct{ metav1.Duration }

// UnmarshalJSON reads "10m" or 600000000000.
func (t *HelmTimeout) UnmarshalJSON(data []byte) error {
	var nanoseconds int64
	if json.Unmarshal(data, &nanoseconds) == nil {
		t.Duration.Duration = time.Duration(nanoseconds)
		return nil
	}
	return t.Duration.UnmarshalJSON(data)
}

// releaseName is Helm's rule for names of releases.
var releaseName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func (h HelmSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, r := range h.Repositories {
		path := path.Child("repositories").Index(i)
		if r.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "charts refer to the repository by it"))
		}
		if r.URL == "" {
			errs = append(errs, field.Required(path.Child("url"), "where the repository is"))
		}
	}
	for i, c := range h.Charts {
		path := path.Child("charts").Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "the name of the release"))
		} else if len(c.Name) > 53 || !releaseName.MatchString(c.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), c.Name, "must be a Helm release name: at most 53 small letters, digits, dashes and dots"))
		}
		if c.Namespace == "" {
			errs = append(errs, field.Required(path.Child("namespace"), "where the release is installed"))
		}
		if t := c.Timeout.Duration.Duration; t < 0 {
			errs = append(errs, field.Invalid(path.Child("timeout"), t.String(), "must not be negative"))
		}
		var values any
		if err := decodeYAML(c.Values, &values); err != nil {
			errs = append(errs, field.Forbidden(path.Child("values"), fmt.Sprintf("must be YAML: %v", err)))
		}
	}
	return errs
}
