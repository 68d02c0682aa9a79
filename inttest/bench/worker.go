package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// measureWorker looks at a worker that no pod runs on, after it has been left alone.
func measureWorker(ctx context.Context, o options, r *Report) (err error) {
	network, err := testhost.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	var hosts []*testhost.Host
	for _, name := range []string{"bench1", "bench2"} {
		host, err := network.Boot(ctx, name)
		if err != nil {
			return err
		}
		if err := cluster.Install(host); err != nil {
			return err
		}
		hosts = append(hosts, host)
	}
	c := cluster.New(hosts[0], "--enable-worker", "--no-taints") // so that it has the system's pods
	if err := errors.Join(c.Start(), c.WaitAPI(ctx)); err != nil {
		return err
	}
	worker, err := c.Join(ctx, hosts[1], cluster.Worker, "--taints=bench=alone:NoSchedule")
	if err != nil {
		return err
	}
	if err := c.WaitNodes(ctx, &c.Node, worker); err != nil {
		return err
	}
	if err := c.WaitSystemPods(ctx); err != nil {
		return err
	}
	if err := r.commands(ctx, c.Host, "token create"); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "leaving the worker alone for %v\n", o.idle)
	if err := wait(ctx, o.idle); err != nil {
		return err
	}
	processes, pss, private, err := memory(worker.Host)
	if err != nil {
		return err
	}
	r.Worker = processes
	r.add("worker alone, idle: PSS", pss)
	r.add("worker alone, idle: private memory", private)
	fmt.Fprintf(os.Stderr, "counting its processor time for %v\n", o.count)
	cpu, err := idleCPU(ctx, worker.Host, o.count, &r.Worker)
	if err != nil {
		return err
	}
	r.add("worker alone, idle: CPU", cpu)
	return nil
}
