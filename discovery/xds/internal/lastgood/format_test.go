package lastgood

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func sha(owner string) [sha256.Size]byte { return sha256.Sum256([]byte(owner)) }

func encoded(t testing.TB, s *snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sample() *snapshot {
	return &snapshot{
		owner: sha("us"), label: `node "us"`, saved: time.Unix(5, 7),
		resources: []Resource{
			{Key: key("a"), Version: "1", Value: []byte("value"), Seen: time.Unix(4, 0)},
			{Key: key(""), Value: []byte{}, Seen: time.Unix(0, 0)},
		},
	}
}

func equal(a, b *snapshot) bool {
	return a.owner == b.owner && a.label == b.label && a.saved.Equal(b.saved) &&
		slices.EqualFunc(a.resources, b.resources, func(x, y Resource) bool {
			return x.Key == y.Key && x.Version == y.Version && x.Seen.Equal(y.Seen) && bytes.Equal(x.Value, y.Value)
		})
}

func TestWhatWasEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	want := sample()
	data := encoded(t, want)
	got, err := decode(data)
	if err != nil || !equal(got, want) {
		t.Errorf("decoded %+v, %v, want %+v", got, err, want)
	}
	size := want.overhead()
	for i := range want.resources {
		size += sizeOf(&want.resources[i])
	}
	if int64(len(data)) > size || size > int64(len(data))+binary.MaxVarintLen64 {
		t.Errorf("%d bytes, estimated as %d", len(data), size)
	}
}

func TestNoPrefixOfAFileIsOne(t *testing.T) {
	t.Parallel()
	data := encoded(t, sample())
	for n := range data {
		if got, err := decode(data[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are %+v", n, len(data), got)
		}
	}
}

func TestNoBitOfAFileCanChange(t *testing.T) {
	t.Parallel()
	data := encoded(t, sample())
	for i := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			if got, err := decode(damaged); err == nil {
				t.Fatalf("with bit %d of byte %d it is %+v", bit, i, got)
			}
		}
	}
}

// FuzzDecode reads bodies with the right checksum, which is what whoever could
// write the file could make, and the file itself.
func FuzzDecode(f *testing.F) {
	body := encoded(f, sample())
	f.Add(body)
	body = body[len(magic)+2 : len(body)-sha256.Size]
	f.Add(body)
	f.Add([]byte(magic))
	f.Add(append(make([]byte, sha256.Size), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Add(append(slices.Clone(body[:len(body)-3]), 0xff, 0xff, 0xff))
	twice := sample()
	twice.resources = append(twice.resources, twice.resources[0])
	again := encoded(f, twice)
	f.Add(again[len(magic)+2 : len(again)-sha256.Size])
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := decode(data); err == nil {
			check(t, got)
		}
		file := append(binary.LittleEndian.AppendUint16([]byte(magic), formatVersion), data...)
		sum := sha256.Sum256(file)
		got, err := decode(append(file, sum[:]...))
		if err != nil {
			if strings.Contains(err.Error(), "checksum") {
				t.Fatal(err)
			}
			return
		}
		check(t, got)
	})
}

// check says that what was decoded is whole, and means the same when it is written
// again.
func check(t *testing.T, s *snapshot) {
	t.Helper()
	again, err := decode(encoded(t, s))
	if err != nil || !equal(again, s) {
		t.Fatalf("%+v became %+v, %v", s, again, err)
	}
	for i := range s.resources {
		new(secrets).holds(s.resources[i].TypeURL, s.resources[i].Value)
	}
}

func BenchmarkEncode(b *testing.B) {
	s := &snapshot{resources: make([]Resource, 10_000)}
	for i := range s.resources {
		s.resources[i] = Resource{Key: key(strings.Repeat("n", 50)), Version: "0123456789abcdef", Value: make([]byte, 2500), Seen: time.Unix(1, 0)}
	}
	b.SetBytes(int64(len(encoded(b, s))))
	b.ReportAllocs()
	for b.Loop() {
		if err := encode(io.Discard, s); err != nil {
			b.Fatal(err)
		}
	}
}
