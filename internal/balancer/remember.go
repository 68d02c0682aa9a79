package balancer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k0s.io/k0s/internal/file"
)

// memory is the content of the file that remembers the servers.
type memory struct {
	Servers []string `json:"servers"`
	// Former are servers that were among them before, the last one first.
	Former []string `json:"former,omitempty"`
}

// recall reads which servers were known; none where there is no such file.
func recall(path string) (memory, error) {
	if path == "" {
		return memory{}, nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, err
	}
	var m memory
	err = json.Unmarshal(content, &m)
	if err == nil {
		m.Servers, err = checkAddresses(m.Servers)
	}
	if err == nil {
		_, err = checkAddresses(m.Former)
	}
	if err != nil {
		return memory{}, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return m, nil
}

func (m memory) remember(path string) error {
	if path == "" {
		return nil
	}
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := file.Write(path, append(content, '\n'), 0o644, file.Options{Durable: true}); err != nil {
		return fmt.Errorf("remembering the API servers: %w", err)
	}
	return nil
}
