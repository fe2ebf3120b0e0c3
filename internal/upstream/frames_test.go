package upstream

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// script is a connection whose peer has said everything already, of which each Read
// gets at most so many bytes.
type script struct {
	net.Conn
	said io.Reader
	most int
}

func (s script) Read(p []byte) (int, error) { return s.said.Read(p[:min(len(p), s.most)]) }

// follow reads all that a peer has said, and returns what its reader makes of it.
func follow(said []byte, most int) (c *framesConn, passed []byte, news int) {
	c = newFramesConn(script{said: bytes.NewReader(said), most: most}, nil)
	count := func() { news++ }
	c.onNews.Store(&count)
	passed, _ = io.ReadAll(c) // what was said before it ended
	return c, passed, news
}

// TestTheStreamsThatAPeerAllowsAreTakenOutOfItsSettings, and nothing else is, however its
// bytes arrive.
func TestTheStreamsThatAPeerAllowsAreTakenOutOfItsSettings(t *testing.T) {
	t.Parallel()
	setting := func(id http2.SettingID, value uint32) http2.Setting { return http2.Setting{ID: id, Val: value} }
	for name, tt := range map[string]struct {
		say     func(f *http2.Framer) error
		allowed int
		limited bool
		goAway  bool
		news    bool
		want    []http2.Setting
	}{
		"it says nothing of them": {
			say: func(f *http2.Framer) error {
				return errors.Join(f.WriteSettings(setting(http2.SettingInitialWindowSize, 3), setting(http2.SettingHeaderTableSize, 0x303)), f.WriteSettingsAck())
			},
			allowed: noLimit,
			want:    []http2.Setting{setting(http2.SettingInitialWindowSize, 3), setting(http2.SettingHeaderTableSize, 0x303)},
		},
		"among others": {
			say: func(f *http2.Framer) error {
				return f.WriteSettings(setting(http2.SettingMaxFrameSize, 1<<14), setting(http2.SettingMaxConcurrentStreams, 100), setting(0xff03, 7), setting(0x300, 8))
			},
			allowed: 100, limited: true, news: true,
			want: []http2.Setting{setting(http2.SettingMaxFrameSize, 1<<14), setting(http2.SettingMaxConcurrentStreams, math.MaxInt32), setting(0xff03, 7), setting(0x300, 8)},
		},
		"none, and twice in a frame": {
			say: func(f *http2.Framer) error {
				return f.WriteSettings(setting(http2.SettingMaxConcurrentStreams, 5), setting(http2.SettingMaxConcurrentStreams, 0))
			},
			allowed: 0, limited: true, news: true,
			want: []http2.Setting{setting(http2.SettingMaxConcurrentStreams, math.MaxInt32), setting(http2.SettingMaxConcurrentStreams, math.MaxInt32)},
		},
		"more than there can be": {
			say: func(f *http2.Framer) error {
				return f.WriteSettings(setting(http2.SettingMaxConcurrentStreams, math.MaxUint32))
			},
			allowed: math.MaxInt32, limited: true, news: true,
			want: []http2.Setting{setting(http2.SettingMaxConcurrentStreams, math.MaxInt32)},
		},
		"again, as before, and what only looks like it": {
			say: func(f *http2.Framer) error {
				return errors.Join(
					f.WriteSettings(setting(http2.SettingMaxConcurrentStreams, 4)), f.WriteSettings(),
					f.WriteSettings(setting(http2.SettingMaxConcurrentStreams, 4)),
					f.WriteData(1, false, []byte("\x00\x03\x00\x00\x00\x01\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01")),
					f.WritePing(false, [8]byte{1: 3, 5: 2}))
			},
			allowed: 4, limited: true, news: true,
			want: []http2.Setting{setting(http2.SettingMaxConcurrentStreams, math.MaxInt32), setting(http2.SettingMaxConcurrentStreams, math.MaxInt32)},
		},
		"it goes away, which is said twice": {
			say: func(f *http2.Framer) error {
				return errors.Join(f.WriteSettings(), f.WriteGoAway(1<<31-1, 0, nil), f.WriteGoAway(1, 0, []byte("\x00\x03\x00\x00\x00\x01")))
			},
			allowed: noLimit, goAway: true, news: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var said bytes.Buffer
			if err := tt.say(http2.NewFramer(&said, nil)); err != nil {
				t.Fatal(err)
			}
			for most := 1; most <= said.Len(); most++ {
				c, passed, news := follow(said.Bytes(), most)
				allowed, limited := c.allowed()
				if allowed != tt.allowed || limited != tt.limited || c.goAway.Load() != tt.goAway || news > 0 != tt.news {
					t.Errorf("%d bytes at a time: %d streams are allowed (%t), it leaves: %t, news: %d", most, allowed, limited, c.goAway.Load(), news)
				}
				expectSettings(t, passed, tt.want)
			}
		})
	}
}

func expectSettings(t *testing.T, passed []byte, want []http2.Setting) {
	t.Helper()
	f := http2.NewFramer(nil, bytes.NewReader(passed))
	var got []http2.Setting
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			break
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok {
			_ = settings.ForeachSetting(func(s http2.Setting) error {
				got = append(got, s)
				return nil
			})
		}
	}
	if len(got) != len(want) {
		t.Fatalf("the settings are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("the settings are %v, want %v", got, want)
		}
	}
}

// FuzzFrames: what is made of a peer's bytes does not depend on how they arrive, and none
// of them is lost.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x00\x00\x03\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"), 5)
	f.Add([]byte("\x00\x00\x07\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01"), 1)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), 3)
	f.Fuzz(func(t *testing.T, said []byte, most int) {
		c1, passed1, _ := follow(said, max(len(said), 1))
		c2, passed2, _ := follow(said, max(most, 1))
		if !bytes.Equal(passed1, passed2) || len(passed1) != len(said) {
			t.Errorf("%q became %q at once, and %q by %d bytes", said, passed1, passed2, most)
		}
		a1, l1 := c1.allowed()
		a2, l2 := c2.allowed()
		if a1 != a2 || l1 != l2 || c1.goAway.Load() != c2.goAway.Load() || a1 < noLimit {
			t.Errorf("%d streams (%t) at once, %d (%t) by %d bytes", a1, l1, a2, l2, most)
		}
	})
}
