package testimage

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Build(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	index, err := exec.Command("tar", "-xOf", file, "index.json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(index, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Manifests) != 1 || got.Manifests[0].Annotations["io.containerd.image.name"] != Name {
		t.Fatalf("the index is %s", index)
	}
	files, err := exec.Command("tar", "-tf", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if blob := strings.Replace(got.Manifests[0].Digest, ":", "/", 1); !bytes.Contains(files, []byte("blobs/"+blob)) {
		t.Errorf("the manifest %s is not among\n%s", blob, files)
	}
}
