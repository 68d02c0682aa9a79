// K0s-policy is a chained CNI plugin that lets a pod start only when its network policies are in the
// kernel: it tells the k0s worker which addresses the plugins before it have given to the pod, and waits
// for the answer. It changes nothing itself.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// timeout is longer than the worker makes a pod wait: internal/network/kuberouter/policy/gate.go.
const timeout = 30 * time.Second

type config struct {
	types.NetConf
	// Socket is where the worker listens.
	Socket string `json:"socket"`
	// Bridge connects the pods.
	Bridge string `json:"bridge"`
}

// request to the worker, which answers with an error or without.
type request struct {
	Command   string   `json:"command"`
	Container string   `json:"container"`
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	UID       string   `json:"uid,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	// Port is the interface on the bridge that leads to the pod's, whose hardware address MAC is.
	Port string `json:"port,omitempty"`
	MAC  string `json:"mac,omitempty"`
}

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: add, Del: del, Check: func(*skel.CmdArgs) error { return nil },
	}, version.All, "waits for a pod's network policies")
}

func add(args *skel.CmdArgs) error {
	conf, err := parse(args)
	if err != nil {
		return err
	}
	if conf.PrevResult == nil {
		return errors.New("k0s-policy must come after the plugin that gives the pod its addresses, but there is no result of one")
	}
	result, err := current.GetResult(conf.PrevResult)
	if err != nil {
		return err
	}
	r := request{Command: "ADD", Container: args.ContainerID}
	for _, ip := range result.IPs {
		r.Addresses = append(r.Addresses, ip.Address.IP.String())
	}
	for _, i := range result.Interfaces {
		if i.Sandbox != "" {
			r.MAC = i.Mac
		} else if i.Name != conf.Bridge {
			r.Port = i.Name
		}
	}
	for _, pair := range strings.Split(args.Args, ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "K8S_POD_NAMESPACE":
			r.Namespace = value
		case "K8S_POD_NAME":
			r.Name = value
		case "K8S_POD_UID":
			r.UID = value
		}
	}
	if err := ask(conf.Socket, r); err != nil {
		return err
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

// del succeeds also while the worker is not there: it finds out for itself that the pod is gone.
func del(args *skel.CmdArgs) error {
	if conf, err := parse(args); err == nil {
		_ = ask(conf.Socket, request{Command: "DEL", Container: args.ContainerID})
	}
	return nil
}

func parse(args *skel.CmdArgs) (*config, error) {
	var conf config
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := version.ParsePrevResult(&conf.NetConf); err != nil {
		return nil, fmt.Errorf("reading the result of the plugin before: %w", err)
	}
	return &conf, nil
}

func ask(socket string, r request) error {
	conn, err := net.DialTimeout("unix", socket, timeout)
	if err != nil {
		return fmt.Errorf("no pod starts before its network policies are in force, and the k0s worker, which sees to that, does not answer: "+
			"%w (start it: the kubelet tries again)", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return fmt.Errorf("asking the k0s worker at %s: %w", socket, err)
	}
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return fmt.Errorf("the k0s worker at %s has not answered: %w (the kubelet tries again)", socket, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s (the kubelet tries again)", answer.Error)
	}
	return nil
}
