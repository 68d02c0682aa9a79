package host

import "testing"

func TestCollides(t *testing.T) {
	for _, tc := range []struct {
		a, b Port
		want bool
	}{
		{Port{"", 1, "a"}, Port{"", 2, "b"}, false},
		{Port{"", 1, "a"}, Port{"192.0.2.1", 1, "b"}, true},
		{Port{"::", 1, "a"}, Port{"192.0.2.1", 1, "b"}, true},
		{Port{"192.0.2.1", 1, "a"}, Port{"192.0.2.1", 1, "b"}, true},
		{Port{"127.0.0.1", 1, "a"}, Port{"192.0.2.1", 1, "b"}, false},
	} {
		if tc.a.Collides(tc.b) != tc.want || tc.b.Collides(tc.a) != tc.want {
			t.Errorf("%v and %v: want %t", tc.a, tc.b, tc.want)
		}
	}
}
