// Bench measures a single node on a test host, a worker alone, and the network of one node and between two, and compares it with
// the budgets of the design.
//
//	go run ./inttest/bench [-runs 3] [-idle 3m] [-count 60s] [-json FILE] [-zstd=false] [-only node|worker|network]
//
// It needs root, build/k0s (or K0S_BIN), for the last size `zstd`, and for the network `iperf3`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// options are what to measure, and how long.
type options struct {
	runs  int
	idle  time.Duration // before memory is looked at
	count time.Duration // how long idle processor time is counted
	zstd  bool
	json  string
	only  string // one part
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 3, "how many fresh hosts to start on; figures are medians")
	flag.DurationVar(&o.idle, "idle", 3*time.Minute, "how long to leave the node alone before looking at its memory")
	flag.DurationVar(&o.count, "count", time.Minute, "how long to count the processor time of the idle node")
	flag.BoolVar(&o.zstd, "zstd", true, "also compress the executable, which takes a minute or two")
	flag.StringVar(&o.json, "json", "", "write the report to this file as JSON too")
	flag.StringVar(&o.only, "only", "", "measure nothing else: node, worker or network")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	report := newReport()
	parts := []struct {
		name    string
		measure func(context.Context, options, *Report) error
	}{{"node", measureNode}, {"worker", measureWorker}, {"network", measureNetwork}}
	known := o.only == ""
	for _, part := range parts {
		if o.only != "" && o.only != part.name {
			continue
		}
		known = true
		fmt.Fprintln(os.Stderr, part.name)
		if err := part.measure(ctx, o, report); err != nil {
			return err
		}
	}
	if !known {
		return fmt.Errorf("-only %s: there are node, worker and network", o.only)
	}
	if err := report.print(os.Stdout); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(text, '\n'), 0o644)
}

// measureNode measures the executable, and a node of its own on fresh hosts.
func measureNode(ctx context.Context, o options, report *Report) error {
	if err := report.sizes(ctx, o.zstd); err != nil {
		return err
	}
	for i := range o.runs {
		fmt.Fprintf(os.Stderr, "run %d of %d\n", i+1, o.runs)
		if err := measure(ctx, o, report, i == o.runs-1); err != nil {
			return err
		}
	}
	return nil
}

// measure takes one host through a cold start, idleness if asked for, and a warm start.
func measure(ctx context.Context, o options, r *Report, idle bool) (err error) {
	network, err := testhost.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	host, err := network.Boot(ctx, "bench")
	if err != nil {
		return err
	}
	if err := cluster.Install(host); err != nil {
		return err
	}
	c := cluster.New(host, "--single")

	if err := start(ctx, c, r, "cold"); err != nil {
		return err
	}
	if idle {
		if err := measureIdle(ctx, o, c, r); err != nil {
			return err
		}
	}
	if err := stop(ctx, c, r); err != nil {
		return err
	}
	if err := start(ctx, c, r, "warm"); err != nil {
		return err
	}
	return stop(ctx, c, r)
}

func stop(ctx context.Context, c *cluster.Cluster, r *Report) error {
	took, err := c.Stop(ctx)
	r.add("SIGTERM to gone", took.Seconds())
	return err
}

// start starts k0s and takes the times until it is of use.
func start(ctx context.Context, c *cluster.Cluster, r *Report, kind string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cpu, err := c.Host.CPU()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if err := c.WaitAPI(ctx); err != nil {
		return err
	}
	r.add(kind+": API ready", time.Since(c.Started).Seconds())
	waits := map[string]func(context.Context) error{
		"node Ready":        c.WaitNode,
		"first pod running": func(ctx context.Context) error { return firstPod(ctx, c, "first-"+kind) },
		"system pods Ready": c.WaitSystemPods,
	}
	type end struct {
		what string
		took time.Duration
		cpu  time.Duration
		err  error
	}
	ends := make(chan end)
	for what, wait := range waits {
		go func() {
			err := wait(ctx)
			took := time.Since(c.Started)
			used, errCPU := c.Host.CPU()
			ends <- end{what, took, used - cpu, errors.Join(err, errCPU)}
		}()
	}
	var errs []error
	for range waits {
		e := <-ends
		errs = append(errs, e.err)
		r.add(kind+": "+e.what, e.took.Seconds())
		if e.what == "first pod running" {
			r.add(kind+": CPU until first pod running", e.cpu.Seconds())
		}
	}
	return errors.Join(errs...)
}

// measureIdle looks at a node that has been left alone.
func measureIdle(ctx context.Context, o options, c *cluster.Cluster, r *Report) error {
	if err := deletePod(ctx, c, "first-cold"); err != nil {
		return err
	}
	disk, err := c.DiskUsed(ctx)
	if err != nil {
		return err
	}
	r.add("disk used by the data directory", float64(disk)/(1<<20))
	if err := r.commands(ctx, c.Host, "version", "status"); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "leaving the node alone for %v\n", o.idle)
	if err := wait(ctx, o.idle); err != nil {
		return err
	}
	processes, pss, private, err := memory(c.Host)
	if err != nil {
		return err
	}
	r.Processes = processes
	r.add("idle: PSS", pss)
	r.add("idle: private memory", private)
	fmt.Fprintf(os.Stderr, "counting processor time for %v\n", o.count)
	cpu, err := idleCPU(ctx, c.Host, o.count, &r.Processes)
	if err != nil {
		return err
	}
	r.add("idle: CPU", cpu)
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// median of an uneven or even number of samples.
func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
