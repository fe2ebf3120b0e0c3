package balancer

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// murmurSeed is what the standard library of GCC, and Envoy with it, begins with.
const murmurSeed = 0xc70f6907

// murmur2 is MurmurHash2 in 64 bits (Austin Appleby, MurmurHash64A), as
// std::hash<std::string> is in the standard library of GCC. That is Envoy's
// MURMUR_HASH_2 on every machine.
func murmur2(key []byte, seed uint64) uint64 {
	const mul = 0xc6a4a7935bd1e995
	h := seed ^ uint64(len(key))*mul
	for ; len(key) >= 8; key = key[8:] {
		k := binary.LittleEndian.Uint64(key) * mul
		h = (h ^ (k^k>>47)*mul) * mul
	}
	if len(key) > 0 {
		var rest uint64
		for _, b := range slices.Backward(key) {
			rest = bits.RotateLeft64(rest, 8) | uint64(b)
		}
		h = (h ^ rest) * mul
	}
	h = (h ^ h>>47) * mul
	return h ^ h>>47
}
