package component

import (
	"slices"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		name string
		ran  []time.Duration
		want []time.Duration
	}{
		{"it ends at once", make([]time.Duration, 10), []time.Duration{
			200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond,
			6400 * time.Millisecond, 12800 * time.Millisecond, 25600 * time.Millisecond, 30 * time.Second, 30 * time.Second,
		}},
		{"it was stable for a while", []time.Duration{time.Second, time.Second, 2 * time.Minute, time.Second}, []time.Duration{
			200 * time.Millisecond, 400 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
		}},
	} {
		var b Backoff
		var got []time.Duration
		for _, ran := range tc.ran {
			got = append(got, b.Next(ran))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
