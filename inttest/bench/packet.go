package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

const (
	// packetRounds is how often each number of pods has its turn, packets how many packets are sent then.
	packetRounds = 9
	packets      = 20000
)

// measurePacket measures what a packet between two pods of a node costs with few pods on it and with many, taking turns.
// The policies' own benchmark does it, in a network of its own with all of our rules.
func measurePacket(ctx context.Context, r *Report) error {
	dir, err := os.MkdirTemp("", "k0s-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "policy.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "k0s.io/k0s/internal/network/kuberouter/policy").CombinedOutput(); err != nil {
		return fmt.Errorf("building the benchmark of packets: %w: %s", err, out)
	}
	for range packetRounds {
		out, err := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench=^BenchmarkPacket$/^(10|1000)$", fmt.Sprintf("-test.benchtime=%dx", packets)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("measuring packets: %w: %s", err, out)
		}
		cost := map[string]float64{}
		for _, line := range packetCost.FindAllSubmatch(out, -1) {
			if cost[string(line[1])], err = strconv.ParseFloat(string(line[2]), 64); err != nil {
				return err
			}
		}
		if len(cost) != 2 {
			return fmt.Errorf("the benchmark of packets says: %s", out)
		}
		r.add("network: packet, 10 pods", cost["10"]/1000)
		r.add("network: packet, 1000 pods", cost["1000"]/1000)
		r.add("network: packet, 10 pods to 1000", cost["10"]/cost["1000"])
	}
	return nil
}

// packetCost are the number of pods and the nanoseconds in a line of a benchmark.
var packetCost = regexp.MustCompile(`(?m)^BenchmarkPacket/(\d+)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`)
