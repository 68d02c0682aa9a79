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
}

// recall reads which servers were known; none where there is no such file.
func recall(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m memory
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	servers, err := checkAddresses(m.Servers)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return servers, nil
}

func remember(path string, servers []string) error {
	if path == "" {
		return nil
	}
	content, err := json.MarshalIndent(memory{Servers: servers}, "", "  ")
	if err != nil {
		return err
	}
	if err := file.Write(path, append(content, '\n'), 0o644, file.Options{Durable: true}); err != nil {
		return fmt.Errorf("remembering the API servers: %w", err)
	}
	return nil
}
