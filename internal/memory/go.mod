module k0s.io/k0s/internal/memory

go 1.26.0

require golang.org/x/sys v0.49.0
