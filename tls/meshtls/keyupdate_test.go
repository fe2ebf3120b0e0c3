package meshtls_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// records writes records of TLS 1.3 with the secret of one side of a connection, whose
// crypto/tls writes none any more.
type records struct {
	conn   io.Writer
	secret []byte
	seal   cipher.AEAD
	iv     []byte
	sent   uint64
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
func expand(t *testing.T, secret []byte, label string, size int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *records) use(t *testing.T, secret []byte) {
	t.Helper()
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if r.seal, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	r.secret, r.iv, r.sent = secret, expand(t, secret, "iv", 12), 0
}

// write writes one record.
func (r *records) write(kind byte, content []byte) error {
	inner := append(bytes.Clone(content), kind)
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+r.seal.Overhead()))
	nonce := bytes.Clone(r.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(r.sent >> (56 - 8*i))
	}
	r.sent++
	_, err := r.conn.Write(r.seal.Seal(head, nonce, inner, head))
	return err
}

const typeHandshake = 22

// keyUpdate changes the keys, and asks the peer to change its own.
func (r *records) keyUpdate(t *testing.T, ask byte) error {
	t.Helper()
	err := r.write(typeHandshake, []byte{24, 0, 0, 1, ask})
	r.use(t, expand(t, r.secret, "traffic upd", sha256.Size))
	return err
}

// flooded is a connection with one side under test, and the other by hand.
type flooded struct {
	err     error // why the side under test stopped reading
	records records
	raw     net.Conn
	done    chan struct{}
}

// written is the end of a connection under test: what it answers counts as sent, also
// if nobody is there any more.
type written struct{ net.Conn }

func (c written) Write(p []byte) (int, error) {
	_, _ = c.Conn.Write(p)
	return len(p), nil
}

// startFlood makes the connection. server tells which side is under test.
func startFlood(t *testing.T, client, server *tls.Config, underTest string) *flooded {
	t.Helper()
	var keys bytes.Buffer
	clientRaw, serverRaw := memnet.Pipe()
	hostile, tested, label := tls.Client(clientRaw, client), tls.Server(written{serverRaw}, server), "CLIENT_TRAFFIC_SECRET_0 "
	raw := clientRaw
	if underTest == "client" {
		hostile, tested, label = tls.Server(serverRaw, server), tls.Client(written{clientRaw}, client), "SERVER_TRAFFIC_SECRET_0 "
		raw = serverRaw
		server.KeyLogWriter = &keys
	} else {
		client.KeyLogWriter = &keys
	}
	f := &flooded{raw: raw, done: make(chan struct{})}
	t.Cleanup(func() {
		_ = clientRaw.Close()
		_ = serverRaw.Close()
		<-f.done
	})
	go func() { // until the connection ends
		defer close(f.done)
		_, f.err = io.Copy(io.Discard, tested)
		_ = tested.Close()
	}()
	if err := hostile.Handshake(); err != nil {
		t.Fatal(err)
	}
	if suite := hostile.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("this machine prefers %s", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(keys.String()) {
		if rest, ok := strings.CutPrefix(line, label); ok {
			secret, err := hex.DecodeString(strings.Fields(rest)[1])
			if err != nil {
				t.Fatal(err)
			}
			f.records.conn = raw
			f.records.use(t, secret)
		}
	}
	return f
}

// TestV27_FloodsOfMessagesBehindTheHandshakeEndTheConnection: changes of keys and
// tickets that nobody asked for, to a server and to a client. A few are part of the
// protocol.
func TestV27_FloodsOfMessagesBehindTheHandshakeEndTheConnection(t *testing.T) {
	t.Parallel()
	const application, most = 23, 1000
	ticket := []byte{4, 0, 0, 14, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 1, 7, 0, 0}
	for name, tt := range map[string]struct {
		side, want string
		write      func(t *testing.T, r *records) error
	}{
		"changes of keys, to a server": {"server", "too many non-advancing records", func(t *testing.T, r *records) error {
			t.Helper()
			return r.keyUpdate(t, 0)
		}},
		"changes of keys that ask for others, to a server": {"server", "too many non-advancing records", func(t *testing.T, r *records) error {
			t.Helper()
			return r.keyUpdate(t, 1)
		}},
		"changes of keys, to a client": {"client", "too many non-advancing records", func(t *testing.T, r *records) error {
			t.Helper()
			return r.keyUpdate(t, 1)
		}},
		"several changes in one record, to a server": {"server", "handshake buffer not empty", func(t *testing.T, r *records) error {
			t.Helper()
			return r.write(typeHandshake, bytes.Repeat([]byte{24, 0, 0, 1, 0}, 1000))
		}},
		"tickets, to a client": {"client", "too many non-advancing records", func(t *testing.T, r *records) error {
			t.Helper()
			return r.write(typeHandshake, ticket)
		}},
		"a ticket, to a server": {"server", "received new session ticket from a client", func(t *testing.T, r *records) error {
			t.Helper()
			return r.write(typeHandshake, ticket)
		}},
		"records without content, to a server": {"server", "too many ignored records", func(t *testing.T, r *records) error {
			t.Helper()
			return r.write(application, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := tlstest.NewCA(t)
			customer, payment := source(t, ca.Workload(t, customerID), ca), source(t, ca.Workload(t, paymentID), ca)
			f := startFlood(t, clientConfig(t, meshtls.ClientParams{Identity: customer, Roots: customer, Authorize: meshtls.AuthorizeAny()}),
				strictServer(t, payment, meshtls.AuthorizeAny()), tt.side)
			// A change of keys is no flood: what follows is read.
			if tt.side == "server" {
				for range 3 {
					if f.records.keyUpdate(t, 0) != nil || f.records.write(application, []byte("hello")) != nil {
						t.Fatal("a few changes of keys end the connection")
					}
				}
			}
			for sent := 0; sent < most && tt.write(t, &f.records) == nil; sent++ {
			}
			_ = f.raw.Close() // whoever still reads ends with that, and for no other reason
			<-f.done
			if f.err == nil || !strings.Contains(f.err.Error(), tt.want) {
				t.Errorf("ended by %v, want %q", f.err, tt.want)
			}
		})
	}
}
