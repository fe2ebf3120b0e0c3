package regularfile

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestV60_OnlyRegularFilesOfABoundedSizeAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", at("link")); err != nil {
		t.Fatal(err)
	}
	// A file of 1 GiB that takes no room.
	if err := os.WriteFile(at("huge"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(at("huge"), 1<<30); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct {
		name, path string
		limit      int64
		want, err  string
	}{
		{"a file", at("file"), 5, "12345", ""},
		{"a link to a file", at("link"), 5, "12345", ""},
		{"a file that is too large", at("file"), 4, "", "is larger than 4 bytes"},
		{"a huge file", at("huge"), MaxToken, "", "is larger than 65536 bytes"},
		{"no file", at("none"), 5, "", "open " + at("none") + ": no such file"},
		{"a directory", dir, 5, "", `file "` + dir + `" is a directory: want a regular file`},
		{"a device without an end", os.DevNull, 5, "", "is a device: want a regular file"},
		{"a socket", at("socket"), 5, "", "is a socket: want a regular file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(tt.path, tt.limit)
			switch {
			case tt.err == "" && (err != nil || string(got) != tt.want):
				t.Errorf("got %q, %v", got, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got %q, %v, want %q", got, err, tt.err)
			}
		})
	}
}
