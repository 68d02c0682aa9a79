// Tester is the program of the test image that busybox has no match for.
//
//	tester serve ADDRESS                    an HTTP server that says who it is and who asks, also to UDP datagrams
//	tester judge ADDRESS DIRECTORY          an admission webhook that refuses what is called forbidden; its
//	                                        certificate is tls.crt and tls.key in the directory
//	tester get [-ca FILE] [-token FILE] URL prints what a server answers; fails unless 200. udp://HOST:PORT sends it
//	                                        a datagram
//	tester lookup NAME                      prints the addresses of a name, sorted
//	tester balance ADDRESS SERVER...        a TCP load balancer: passes connections on to the servers by turns
//	tester probe SOCKET PORT...             answers at the ports, by TCP and UDP, and does what package
//	                                        inttest/policy/probe can ask for
//	tester burst PORT ADDRESS:PORT...       sends packets from its first moment on, and says who sent some to its port
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// patience is how long a question may stay unanswered.
const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tester:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: tester serve ADDRESS | judge ADDRESS DIRECTORY | get [-ca FILE] [-token FILE] URL | lookup NAME | balance ADDRESS SERVERS | probe SOCKET PORTS | burst PORT TARGETS")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch args[0] {
	case "serve":
		return serve(args[1])
	case "judge":
		return judge(args[1], args[len(args)-1])
	case "get":
		return get(ctx, args[1:])
	case "lookup":
		return lookup(ctx, args[1])
	case "balance":
		return balance(args[1], args[2:])
	case "probe":
		return probeServer(args[1], args[2:])
	case "burst":
		return burst(args[1], args[2:])
	}
	return fmt.Errorf("there is no %q", args[0])
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	answer := func(client string) string {
		host, _, _ := net.SplitHostPort(client)
		return fmt.Sprintf("%s answers %s\n", name, host)
	}
	datagrams, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			_, client, err := datagrams.ReadFrom(make([]byte, 1))
			if err == nil {
				_, err = datagrams.WriteTo([]byte(answer(client.String())), client)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "tester:", err)
			}
		}
	}()
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, answer(r.RemoteAddr))
	}))
}

func judge(address, dir string) error {
	return http.ListenAndServeTLS(address, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // each question is to find its way anew
		var review struct {
			Request struct{ UID, Name string }
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		type object map[string]any
		err := json.NewEncoder(w).Encode(object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": object{
			"uid": review.Request.UID, "allowed": review.Request.Name != "forbidden",
			"status": object{"message": "judge has refused " + review.Request.Name},
		}})
		if err != nil {
			fmt.Fprintln(os.Stderr, "tester:", err)
		}
	}))
}

func get(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	ca := flags.String("ca", "", "trust the servers that these certificates vouch for")
	token := flags.String("token", "", "send the bearer token in this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if address, ok := strings.CutPrefix(flags.Arg(0), "udp://"); ok {
		return getDatagram(ctx, address)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		return err
	}
	if *token != "" {
		text, err := os.ReadFile(*token)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if *ca != "" {
		text, err := os.ReadFile(*ca)
		if err != nil {
			return err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", flags.Arg(0), response.Status)
	}
	return nil
}

func getDatagram(ctx context.Context, address string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(answer[:n])
	return err
}

func lookup(ctx context.Context, name string) error {
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	slices.Sort(addresses)
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}

// balance leaves out, for one connection, a server that does not take it within a second.
func balance(address string, servers []string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for turn := 0; ; turn++ {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			for i := range servers {
				server, err := net.DialTimeout("tcp", servers[(turn+i)%len(servers)], time.Second)
				if err != nil {
					continue
				}
				defer server.Close()
				go func() {
					_, _ = io.Copy(server, client)
					server.Close()
				}()
				_, _ = io.Copy(client, server)
				return
			}
		}()
	}
}
