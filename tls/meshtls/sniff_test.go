package meshtls

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestSniffReportsABrokenConnection(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if _, _, err := sniff(iotest.ErrReader(broken)); err != broken {
		t.Errorf("got %v, want %v", err, broken)
	}
	if _, _, err := sniff(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	if prefix, tls, err := sniff(iotest.DataErrReader(bytes.NewReader([]byte{0x16, 0x03, 0x01}))); !tls || err != nil || len(prefix) != 3 {
		t.Errorf("got %x, %v, %v, want TLS", prefix, tls, err)
	}
}

// TestV28_OnlyARecordOfAHandshakeIsTLS, however it is cut (FuzzSniff): what
// looks like TLS to nobody else is never let through as TLS, and the other way
// round is refused by STRICT as plaintext.
func TestV28_OnlyARecordOfAHandshakeIsTLS(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bytes []byte
		want  bool
	}{
		"a hello":                     {[]byte{0x16, 0x03, 0x01, 0x02}, true},
		"a hello of SSLv2":            {[]byte{0x80, 0x2e, 0x01, 0x00, 0x02}, false},
		"a PROXY header":              {[]byte("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"), false},
		"a PROXY header, version 2":   {[]byte("\r\n\r\n\x00\r\nQUIT\n"), false},
		"an alert":                    {[]byte{0x15, 0x03, 0x01}, false},
		"application data":            {[]byte{0x17, 0x03, 0x03}, false},
		"a version that there is not": {[]byte{0x16, 0x03, 0x05}, false},
		"the beginning of a hello":    {[]byte{0x16, 0x03}, false},
	} {
		if _, got, err := sniff(iotest.OneByteReader(bytes.NewReader(tt.bytes))); got != tt.want || err != nil {
			t.Errorf("%s: TLS %t, %v", name, got, err)
		}
	}
}

// FuzzSniff checks that the verdict does not depend on how the bytes are cut,
// and that no byte is lost.
func FuzzSniff(f *testing.F) {
	for _, seed := range [][]byte{
		{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}, {0x16, 0x03, 0x03}, {0x16, 0x03, 0x05}, {0x16, 0x03}, {0x16},
		{0x80, 0x2e, 0x01, 0x00, 0x02}, []byte("GET / HTTP/1.1\r\n"), []byte("PRI * HTTP/2.0\r\n"),
		[]byte("PROXY TCP4"), []byte("\r\n\r\n\x00\r\nQUIT\n"), {0x15, 0x03, 0x01}, {}, {0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, wholeTLS, wholeErr := sniff(bytes.NewReader(data))
		rest := bytes.NewReader(data)
		cut, cutTLS, cutErr := sniff(iotest.OneByteReader(rest))
		if wholeTLS != cutTLS || (wholeErr == nil) != (cutErr == nil) {
			t.Fatalf("%x: whole %v, %v; byte by byte %v, %v", data, wholeTLS, wholeErr, cutTLS, cutErr)
		}
		if wholeTLS && (data[0] != 0x16 || data[1] != 0x03) {
			t.Fatalf("%x is not TLS", data)
		}
		if (wholeErr != nil) != (len(data) == 0) {
			t.Fatalf("%x: %v", data, wholeErr)
		}
		if !bytes.HasPrefix(data, whole) {
			t.Fatalf("%x became %x", data, whole)
		}
		after, _ := io.ReadAll(rest)
		if got := append(cut, after...); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
	})
}
