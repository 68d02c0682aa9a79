package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/pkg/token"
)

func TestTake(t *testing.T) {
	worker := testToken(t, token.Worker)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(worker+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		f        TokenFlags
		variable string
		want     bool
		wantErr  string
	}{
		{"none", TokenFlags{}, "", false, ""},
		{"argument", TokenFlags{arg: worker}, "", true, ""},
		{"file", TokenFlags{file: file}, "", true, ""},
		{"environment", TokenFlags{}, worker, true, ""},
		{"twice", TokenFlags{file: file}, worker, false, "is given by the environment variable K0S_TOKEN and --token-file: give it once"},
		{"three times", TokenFlags{file: file, arg: worker}, worker, false, "give it once"},
		{"no such file", TokenFlags{file: file + "x"}, "", false, "no such file"},
		{"for another role", TokenFlags{arg: testToken(t, token.Controller)}, "", false, "the argument: this is a controller token"},
		{"rubbish", TokenFlags{}, "rubbish", false, "the environment variable K0S_TOKEN: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(TokenVariable, tc.variable)
			join, err := tc.f.Take(token.Worker)
			if (join != nil) != tc.want || (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("got %+v, %v", join, err)
			}
			if os.Getenv(TokenVariable) != "" {
				t.Error("the children would inherit the token")
			}
		})
	}
}

func testToken(t *testing.T, role token.Role) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca")
	if _, err := pki.EnsureCA(ca, "test", time.Hour, pki.Owner{UID: -1}); err != nil {
		t.Fatal(err)
	}
	cert, err := os.ReadFile(ca + ".crt")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := token.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := token.Join{Role: role, URL: "https://192.0.2.1:6443", CA: cert, Secret: secret}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
