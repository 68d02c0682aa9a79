package balancer

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// tolerance is how long a server may be unwell before no connection may be left to it, and be well before
// clients must be able to rely on it. A detection takes busy + 2 × check + firstRetry of quick, half a
// second; the rest is for a machine that is busy with other tests.
const tolerance = 1500 * time.Millisecond

// Whatever happens to the servers: there is no connection to one that has been unwell for long while
// another has been well for long, and then every client gets answers.
// $BALANCER_SEED repeats a run, $BALANCER_SECONDS makes it longer.
func TestRandomEvents(t *testing.T) {
	seed, length := rand.Uint64(), 10*time.Second
	if s, err := strconv.ParseUint(os.Getenv("BALANCER_SEED"), 10, 64); err == nil {
		seed = s
	}
	if s, err := strconv.Atoi(os.Getenv("BALANCER_SECONDS")); err == nil {
		length = time.Duration(s) * time.Second
	}
	t.Run("worlds", func(t *testing.T) {
		for i := range uint64(2) {
			t.Run(fmt.Sprint(seed+i), func(t *testing.T) {
				t.Parallel()
				randomEvents(t, rand.New(rand.NewPCG(seed+i, 1)), length)
			})
		}
	})
	noneLeft(t)
}

func randomEvents(t *testing.T, random *rand.Rand, length time.Duration) {
	w := newWorld(t, isWell, isWell, isWell)
	o := w.options(t)
	o.Log = slog.New(slog.DiscardHandler)
	w.balance(t, o, quick)
	if err := w.SetServers(w.addresses()); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	defer running.Wait()
	defer close(stop)

	var clients []*busyClient
	for i := range 6 {
		c := &busyClient{last: time.Now(), keeps: i%2 == 0}
		clients = append(clients, c)
		running.Go(func() { c.run(w, stop) })
	}
	var history []string
	next := time.Now()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(next) {
			next = time.Now().Add(time.Duration(random.IntN(1500)) * time.Millisecond)
			if random.IntN(6) == 0 { // the list changes
				list := []string{w.servers[random.IntN(3)].address, w.servers[random.IntN(3)].address}
				history = append(history, fmt.Sprint("the list is ", list))
				if err := w.SetServers(list); err != nil {
					t.Fatal(err)
				}
			} else {
				s, m := w.servers[random.IntN(3)], mode(random.IntN(4))
				if random.IntN(3) == 0 {
					m = isWell
				}
				history = append(history, s.name+" is "+m.String())
				s.set(t, m)
			}
		}
		if err := invariant(w, clients); err != nil {
			t.Fatalf("%v\nwhat happened: %q\n%+v", err, history, w.Status())
		}
	}
	served := 0
	for _, c := range clients {
		served += c.count()
	}
	t.Logf("%d events, %d requests served", len(history), served)
}

// invariant says what should not be.
func invariant(w *world, clients []*busyClient) error {
	present := map[string]*server{}
	var problem error
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.Balancer.servers {
		present[s.address] = s
	}
	var well *apiServer // for long
	for _, s := range w.servers {
		m, since, _ := s.state()
		if present[s.address] == nil {
			continue
		}
		if m == isWell && time.Since(since) > tolerance && present[s.address].health == Ready {
			well = s
		}
	}
	for _, s := range w.servers {
		m, since, _ := s.state()
		known := present[s.address]
		if known == nil || time.Since(since) < tolerance {
			continue
		}
		if m == isWell && !known.since.IsZero() && known.health != Ready {
			problem = fmt.Errorf("%s has been well for %v, and is taken for %s", s.name, time.Since(since), known.health)
		}
		if m != isWell && well != nil && len(known.conns) > 0 {
			problem = fmt.Errorf("%s has been %s for %v and has %d connections, although %s is well", s.name, m, time.Since(since), len(known.conns), well.name)
		}
	}
	if well != nil {
		_, since, _ := well.state()
		for _, c := range clients {
			if ago := c.ago(); ago > 2*tolerance && time.Since(since) > 2*tolerance {
				problem = fmt.Errorf("a client has had no answer for %v, although %s has been well for %v", ago, well.name, time.Since(since))
			}
		}
	}
	return problem
}

// busyClient asks again and again, over one connection as long as it goes or over many.
type busyClient struct {
	keeps bool

	mu     sync.Mutex
	last   time.Time // when it got an answer
	served int
}

func (c *busyClient) run(w *world, stop <-chan struct{}) {
	var conn *client
	for {
		select {
		case <-stop:
			if conn != nil {
				conn.Close()
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
		err := error(nil)
		if conn == nil {
			conn, err = w.connect()
		}
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // the balancer is to be faster
			_, err = conn.get("/who")
		}
		if err == nil {
			c.mu.Lock()
			c.last = time.Now()
			c.served++
			c.mu.Unlock()
		}
		if conn != nil && (err != nil || !c.keeps) {
			conn.Close()
			conn = nil
		}
	}
}

func (c *busyClient) ago() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.last)
}

func (c *busyClient) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served
}
