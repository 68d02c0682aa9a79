package applet

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	ctrapp "github.com/containerd/containerd/v2/cmd/ctr/app"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // containerd's plugins

	"k0s.io/k0s/internal/applet/name"
)

func containerd() int {
	return report(name.Containerd, command.App().Run(context.Background(), os.Args))
}
func ctr() int { return report(name.Ctr, ctrapp.New().Run(context.Background(), os.Args)) }

func report(program string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
	return 1
}
