package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/testhost"
)

// What scenarios with several hosts rely on, as far as it can be had without joining: two clusters of one
// node each, the second of which is taken for a member of the first.
func TestMembers(t *testing.T) {
	hosts := Hosts(t, testhost.NewNetwork(t), "first", "Second")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := New(hosts[0], "--single")
	second := newNode(hosts[1], Controller, "--single")
	for state, want := range map[string]string{"joining": "", "member": "(none)"} {
		hosts[1].Run(t, "sh", "-c", fmt.Sprintf(`mkdir -p %[1]s && echo '{"role":"controller","state":"%[2]s"}' >%[1]s/identity.json`, second.DataDir, state))
		if id, err := second.clusterID(); err != nil || id != want {
			t.Errorf("the cluster of who is %s, without an id: %q, %v; want %q", state, id, err, want)
		}
	}
	hosts[1].Run(t, "rm", "-r", second.DataDir)
	for _, start := range []func() error{c.Start, second.Start} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitAnyAPI(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckOneCluster(ctx); err != nil {
		t.Error(err)
	}
	if err := c.WaitNodes(ctx, &c.Node); err != nil {
		t.Fatal(err)
	}
	if client, err := c.Through(&c.Node); err != nil {
		t.Error(err)
	} else if _, err := client.CoreV1().Nodes().Get(ctx, "first", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}

	c.Add(second)
	if err := c.WaitControllers(ctx, c.Controllers()...); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckOneCluster(ctx); err == nil || !strings.Contains(err.Error(), "not one cluster id") {
		t.Errorf("two clusters pass for one: %v", err)
	}
	id, err := c.clusterID()
	if err != nil {
		t.Fatal(err)
	}
	own, err := second.clusterID()
	if err != nil {
		t.Fatal(err)
	}
	hosts[1].Run(t, "sed", "-i", "s/"+own+"/"+id+"/", second.DataDir+"/identity.json")
	if err := c.CheckOneCluster(ctx); err == nil || !strings.Contains(err.Error(), "uid of the namespace kube-system") {
		t.Errorf("two stores pass for one: %v", err)
	}
	hosts[1].Run(t, "rm", second.DataDir+"/identity.json")
	if err := c.CheckOneCluster(ctx); err == nil || !strings.Contains(err.Error(), "no identity") {
		t.Errorf("a store without identity passes: %v", err)
	}

	if err := c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitAnyAPI(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(c.Config.Host, hosts[1].IP) {
		t.Errorf("with the first controller dead, the API is %s", c.Config.Host)
	}
	if err := c.WaitNodes(ctx, second); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.WaitNodes(short, second, &c.Node); err == nil || !strings.Contains(err.Error(), "there is no node first") {
		t.Errorf("the second cluster has the node of the first: %v", err)
	}
	c.Remove(second)
	if err := c.CheckOneCluster(ctx); err != nil {
		t.Error(err)
	}
	if err := c.WaitAnyAPI(ctx); err == nil || !strings.Contains(err.Error(), "k0s ended") {
		t.Errorf("waiting for a cluster that is no more: %v", err)
	}
}
