// Shell runs a command on a fresh test host on which k0s is installed, and takes the host away
// when the command ends. Without arguments the command is bash: a place to try things in.
//
//	go run ./inttest/shell
//	go run ./inttest/shell bash -c 'k0s controller --single >/tmp/log & …'
//
// The image of the tests is on the host as /tmp/testimage.tar.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
	"k0s.io/k0s/inttest/testimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signal.Ignore(os.Interrupt) // is meant for the command
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"bash"}
	}
	if err := run(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, "shell:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	network, err := testhost.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	host, err := network.Boot(ctx, "shell")
	if err != nil {
		return err
	}
	if err := cluster.Install(host); err != nil {
		return err
	}
	if err := putImage(ctx, host); err != nil {
		return err
	}
	cmd := host.Command(ctx, args...)
	cmd.SysProcAttr.Setpgid = false // or the terminal would stop it as a background process
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func putImage(ctx context.Context, host *testhost.Host) (err error) {
	dir, err := os.MkdirTemp("", "testimage")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "testimage.tar")
	if err := testimage.Build(ctx, file); err != nil {
		return err
	}
	return host.Copy(file, "/tmp/testimage.tar")
}
