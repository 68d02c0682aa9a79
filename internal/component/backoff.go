package component

import "time"

// Back-off between restarts: doubled from min to max, from the start again after a stable run.
const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 30 * time.Second
	stable     = time.Minute
)

// Backoff says how long to wait before something that has ended is started again. The zero value is
// ready for use.
type Backoff struct{ last time.Duration }

// Next is the time to wait after a run that lasted for ran: 200 ms, doubled each time up to 30 s, and
// 200 ms again after a run of a minute.
func (b *Backoff) Next(ran time.Duration) time.Duration {
	if b.last == 0 || ran > stable {
		b.last = minBackoff
	} else {
		b.last = min(2*b.last, maxBackoff)
	}
	return b.last
}
