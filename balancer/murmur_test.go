package balancer

import "testing"

// The numbers are of _Hash_bytes in the standard library of GCC 12.
func TestBL3_MurmurHash2IsThatOfEnvoy(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]uint64{
		"":                 6142509188972423790,
		"a":                4993892634952068459,
		"ab":               5498234120169091963,
		"abc":              3663726644998027833,
		"abcdefg":          16063891478991045295,
		"abcdefgh":         8664279048047335611,
		"abcdefghi":        13036955925923793583,
		"10.0.0.1:80_0":    13659246566588789388,
		"10.0.0.1:80_1023": 15789037270009152486,
		"the quick brown fox jumps over the lazy dog": 4385160446860836741,
	} {
		if got := murmur2([]byte(key), murmurSeed); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}
