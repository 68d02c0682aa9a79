package applet

import (
	"strings"
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestCheckDataSource(t *testing.T) {
	for source, want := range map[string]string{
		"sqlite:///var/lib/k0s/x.db?_journal_mode=WAL": "",

		"mysql://k0s:geheim@tcp(192.0.2.30:3306)/k0s":          "",
		"mysql://k0s:geh:e/i@m@tcp(192.0.2.30:3306)/k0s":       "",
		"mysql://k0s:geheim@unix(/run/mysqld/mysqld.sock)/k0s": "",
		"mysql://k0s:geheim@tcp(192.0.2.30)/k0s?tls=true":      "",
		"mysql://k0s:geheim@192.0.2.30:3306/k0s":               "must be such as mysql://",
		"mysql://k0s:geheim@tcp(192.0.2.30:3306)":              "must be such as mysql://",
		"mysql://k0s:geheim@tcp(192.0.2.30:3306)/k0s?tls=no":   "must be such as mysql://",

		"postgres://k0s:geheim@192.0.2.30:5432/k0s":                     "",
		"postgresql://k0s:geheim@192.0.2.30":                            "",
		"postgres://k0s:geh%2Feim@192.0.2.30/k0s?sslmode=verify-full":   "",
		"postgres://k0s:geh@eim@192.0.2.30/k0s":                         "", // the driver finds its way
		"postgres://k0s:geheim@192.0.2.30,192.0.2.31/k0s":               "",
		"postgres://k0s:geheim@192.0.2.30/k0s?sslrootcert=/no/such/ca":  "",
		"postgres://k0s:geheim@192.0.2.30/k0s?sslcert=/no&sslkey=/none": "",
		"postgres://k0s:geheim@192.0.2.30/k0s?sslmode=bogus":            "such as sslmode",
		"postgres://k0s:geheim@192.0.2.30:no/k0s":                       "must be such as postgres://",
		"postgres://k0s:geheim%zz@192.0.2.30/k0s":                       "percent-encode",
		"postgres://k0s:geheim/x@192.0.2.30/k0s":                        "percent-encode",
		"postgres://k0s:geheim@192.0.2.30/k0s?sslmode=%zz":              "parameters after the question mark",

		"nats://k0s:geheim@192.0.2.30:4222?bucket=k0s&noEmbed": "",
		"nats://geheim@192.0.2.30,nats://192.0.2.31":           "",
		"nats:///?contextFile=/etc/k0s/nats.json":              "",
		"nats://192.0.2.30,192.0.2.31":                         "each with nats://",
		"nats://k0s:geheim%zz@192.0.2.30":                      "must be such as nats://",
	} {
		got := Programs{}.CheckDataSource(source)
		if !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
		if strings.Contains(got, "geh") {
			t.Errorf("%s: the password shows: %s", source, got)
		}
	}
	_, err := v1beta1.Parse([]byte("spec:\n  storage:\n    type: kine\n    kine:\n      dataSource: mysql://k0s:geheim@192.0.2.30/k0s"), Programs{})
	if err == nil || !strings.HasPrefix(err.Error(), "line 5: spec.storage.kine.dataSource: the driver cannot read it") {
		t.Errorf("got %v", err)
	}
}
